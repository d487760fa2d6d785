# COCO 2014 for stage 1: the 82,783 images of `train2014`, those without any of the 80 classes left out. After each
# epoch the tags of `val2014` are measured, which choose the checkpoint; tools/test.py measures CAMs on `train2014`.
_base_ = ['coco.py', 'tags.py']
tagged = dict(dataset=_base_.dataset_train, tag_file=_base_.tag_file, drop_untagged=True)
train_dataloader = dict(drop_last=True, dataset=tagged)
val_dataloader = dict(
    dataset=dict(
        dataset=_base_.dataset_val,
        tag_file=_base_.data_root + '/tags_val2014.csv',
        drop_untagged=True,
        pipeline=_base_.tag_pipeline,
    )
)
val_evaluator = _base_.tag_evaluator
test_dataloader = dict(dataset=dict(tagged, pipeline=_base_.native_test_pipeline))
pseudo_mask_dataloader = dict(dataset=dict(tagged, pipeline=_base_.native_cam_pipeline))
layer_entropy_dataloader = dict(dataset=tagged)
pseudo_masks = dict(dataloader=pseudo_mask_dataloader)
affinity_profile = dict(dataloader=test_dataloader)
