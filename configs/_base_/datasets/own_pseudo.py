# Your own photographs (own.py) with the pseudo masks of stage 1, for stage 2; measured on those that have a true mask.
_base_ = 'own.py'
mask_dir = 'work_dirs/own_photographs/pseudo_masks'
crop_size = (256, 256)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(320, 320), ratio_range=(0.75, 1.75), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.9),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(384, 384), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(int(384 * r),) * 2, keep_ratio=True)
                for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            [dict(type='RandomFlip', prob=p, direction='horizontal') for p in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='aream_mm.PseudoMaskDataset',
        dataset=_base_.photographs,
        mask_dir=mask_dir,
        drop_unmasked=_base_.drop_untagged,
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='aream_mm.MaskDataset',
        dataset=_base_.photographs,
        drop_unmasked=True,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
pseudo_mask_dataloader = dict(  # of tools/test.py --pseudo-masks
    batch_size=4,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='aream_mm.ImageTagDataset',
        dataset=_base_.photographs,
        tag_file=_base_.tag_file,
        drop_untagged=_base_.drop_untagged,
        pipeline=[*test_pipeline[:2], dict(type='aream_mm.PackTagInputs')],
        test_mode=True,
    ),
)
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
