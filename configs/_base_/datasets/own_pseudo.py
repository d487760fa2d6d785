# Your own photographs (own.py) with the pseudo masks of stage 1, for stage 2; measured on those that have a true mask.
_base_ = ['own.py', 'pseudo.py']
mask_dir = 'work_dirs/own_photographs/pseudo_masks'
train_pipeline, test_pipeline, tta_pipeline, cam_pipeline = [
    [*_base_.load, *pipeline[1:]]
    for pipeline in (
        _base_.small_train_pipeline,
        _base_.small_test_pipeline,
        _base_.small_tta_pipeline,
        _base_.small_cam_pipeline,
    )
]

own = dict(dataset=_base_.photographs)
train_dataloader = dict(
    num_workers=2,
    dataset=dict(
        dataset=_base_.corrected,
        mask_dir=mask_dir,
        tag_file=_base_.tag_file,
        true_masks=bool(_base_.true_masks),
        left_out=_base_.left_out,
        pipeline=train_pipeline,
    ),
)
val_dataloader = val_evaluator = None
test_dataloader = dict(
    num_workers=2, dataset=dict(own, drop_unmasked=True, learnt=_base_.true_masks, pipeline=test_pipeline)
)
pseudo_mask_dataloader = dict(
    num_workers=2,
    dataset=dict(own, tag_file=_base_.tag_file, pipeline=cam_pipeline),
)
