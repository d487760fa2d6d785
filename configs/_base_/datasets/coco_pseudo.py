# COCO 2014 for stage 2: the tagged images of `train2014` with the pseudo masks of stage 1, measured on the masks of
# all 40,504 images of `val2014`.
_base_ = ['coco.py', 'pseudo.py']
mask_dir = 'work_dirs/aream_vit_coco/pseudo_masks'
train_dataloader = dict(
    dataset=dict(dataset=_base_.dataset_train, mask_dir=mask_dir, tag_file=_base_.tag_file, drop_unmasked=True)
)
val_dataloader = dict(dataset=dict(dataset=_base_.dataset_val))
test_dataloader = val_dataloader
pseudo_mask_dataloader = dict(dataset=dict(dataset=_base_.dataset_train, tag_file=_base_.tag_file, drop_untagged=True))
