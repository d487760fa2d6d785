# COCO 2014 as photographs and tags: the 82,783 images of `train2014`, those without any of the 80 classes left out.
# List, tags and masks by tools/converters/coco.py; pipelines and evaluators are those of voc_tags.py.
#
# While training, CAMs are measured on the first 5,000 images of the list, and tools/test.py measures them on all of it;
# to do that while training too: --cfg-options val_dataloader.dataset.dataset.indices=None
_base_ = 'voc_tags.py'
data_root = 'data/coco'
tag_file = data_root + '/tags_train2014.csv'

# The names of voc_tags.py, so that the paths of VOC do not stay behind in them.
dataset_train_aug = dataset_train = dict(
    type='aream_mm.COCO2014Dataset',
    data_root=data_root,
    data_prefix=dict(img_path='train2014', seg_map_path='masks/train2014'),
    ann_file='train2014.txt',
)
train2014 = dict(dataset=dataset_train, tag_file=tag_file, drop_untagged=True)
train_dataloader = dict(dataset=train2014)
val_dataloader = dict(dataset=dict(train2014, dataset=dict(dataset_train, indices=5000)))
test_dataloader = dict(dataset=train2014)
pseudo_mask_dataloader = dict(dataset=train2014)
layer_entropy_dataloader = dict(dataset=train2014)
