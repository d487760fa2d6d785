# COCO 2014 for stage 2: the tagged pictures of `train2014` with the pseudo masks of stage 1, measured on the masks of
# all 40,504 pictures of `val2014`. Lists and masks by tools/converters/coco.py; pipelines are those of voc_pseudo.py.
_base_ = 'voc_pseudo.py'
data_root = 'data/coco'
tag_file = data_root + '/tags_train2014.csv'
mask_dir = 'work_dirs/aream_vit_coco/pseudo_masks'

dataset_train_aug = dict(
    type='aream_mm.COCO2014Dataset',
    data_root=data_root,
    data_prefix=dict(img_path='train2014', seg_map_path='masks/train2014'),
    ann_file='train2014.txt',
)
dataset_val = dict(
    dataset_train_aug, data_prefix=dict(img_path='val2014', seg_map_path='masks/val2014'), ann_file='val2014.txt'
)
train_dataloader = dict(dataset=dict(dataset=dataset_train_aug, mask_dir=mask_dir, drop_unmasked=True))
val_dataloader = dict(dataset=dict(dataset=dataset_val))
test_dataloader = val_dataloader
pseudo_mask_dataloader = dict(dataset=dict(dataset=dataset_train_aug, tag_file=tag_file, drop_untagged=True))
