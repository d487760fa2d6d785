# Six classes of PASCAL VOC 2012 for stage 2, as in animals_tags.py: the pseudo masks of stage 1, measured on the masks
# of `val`.
_base_ = 'voc_pseudo.py'
mask_dir = 'work_dirs/aream_dual_animals/pseudo_masks'
metainfo = dict(classes=('background', 'cat', 'cow', 'dog', 'horse', 'person', 'sheep'))
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
    num_workers=2,
    dataset=dict(dataset=dict(metainfo=metainfo), mask_dir=mask_dir, drop_unmasked=True, pipeline=train_pipeline),
)
val_dataloader = dict(num_workers=2, dataset=dict(dataset=dict(metainfo=metainfo), pipeline=test_pipeline))
test_dataloader = val_dataloader
pseudo_mask_dataloader = dict(
    num_workers=2,
    dataset=dict(
        dataset=dict(metainfo=metainfo),
        drop_untagged=True,
        pipeline=[*test_pipeline[:2], dict(type='aream_mm.PackTagInputs')],
    ),
)
