# Six classes of PASCAL VOC 2012 for stage 2, as in animals_tags.py: the pseudo masks of stage 1, measured on the masks
# of `val`.
_base_ = ['voc.py', 'pseudo.py']
mask_dir = 'work_dirs/aream_vit_animals/pseudo_masks'
metainfo = dict(classes=('background', 'cat', 'cow', 'dog', 'horse', 'person', 'sheep'))
train_pipeline = _base_.small_train_pipeline
test_pipeline, tta_pipeline = _base_.small_test_pipeline, _base_.small_tta_pipeline

val, train_aug = [
    dict(dataset=dict(images, metainfo=metainfo)) for images in (_base_.dataset_val, _base_.dataset_train_aug)
]
train_dataloader = dict(
    num_workers=2,
    dataset=dict(train_aug, mask_dir=mask_dir, tag_file=_base_.tag_file, drop_unmasked=True, pipeline=train_pipeline),
)
val_dataloader = dict(num_workers=2, dataset=dict(val, pipeline=test_pipeline))
test_dataloader = val_dataloader
pseudo_mask_dataloader = dict(
    num_workers=2,
    dataset=dict(train_aug, tag_file=_base_.tag_file, drop_untagged=True, pipeline=_base_.small_cam_pipeline),
)
