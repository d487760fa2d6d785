# COCO 2014, for both stages. Lists, tags and masks by tools/converters/coco.py.
data_root = 'data/coco'
tag_file = data_root + '/tags_train2014.csv'

dataset_train = dict(
    type='aream_mm.COCO2014Dataset',
    data_root=data_root,
    data_prefix=dict(img_path='train2014', seg_map_path='masks/train2014'),
    ann_file='train2014.txt',
)
dataset_val = dict(
    dataset_train, data_prefix=dict(img_path='val2014', seg_map_path='masks/val2014'), ann_file='val2014.txt'
)
