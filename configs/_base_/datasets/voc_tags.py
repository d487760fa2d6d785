# PASCAL VOC 2012 for stage 1: trained on train_aug. After each epoch the tags of `val` are measured, which choose the
# checkpoint; tools/test.py measures CAMs on the 1,464 `train` images, and so are pseudo masks.
_base_ = ['voc.py', 'tags.py']
tag_file = _base_.tag_file
train_dataloader = dict(drop_last=True, dataset=dict(dataset=_base_.dataset_aug_masks, tag_file=tag_file))
# Whole images of the size of the crops. The authors look at the middle of each, of which no CAM could be drawn.
val_dataloader = dict(dataset=dict(dataset=_base_.dataset_val, tag_file=tag_file, pipeline=_base_.tag_pipeline))
val_evaluator = _base_.tag_evaluator
test_dataloader = dict(
    dataset=dict(dataset=_base_.dataset_train, tag_file=tag_file, pipeline=_base_.native_test_pipeline)
)
pseudo_mask_dataloader = dict(
    dataset=dict(dataset=_base_.dataset_train_aug, tag_file=tag_file, pipeline=_base_.native_cam_pipeline)
)
layer_entropy_dataloader = dict(dataset=dict(dataset=_base_.dataset_aug_masks, tag_file=tag_file))
pseudo_masks = dict(dataloader=pseudo_mask_dataloader)
affinity_profile = dict(dataloader=test_dataloader)
