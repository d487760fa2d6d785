# Stage 2: mmseg's pipelines for images of about 512 pixels, smaller ones for a CPU, loaders and figures. A file
# beside this one names the images and masks of each loader.
crop_size = (512, 512)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='aream_mm.PackTagInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='aream_mm.PackTagInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)],
            [dict(type='RandomFlip', prob=p, direction='horizontal') for p in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='aream_mm.PackTagInputs')],
        ],
    ),
]
cam_pipeline = [*test_pipeline[:2], dict(type='aream_mm.PackTagInputs')]

# The same for images of about 384 pixels.
small_crop_size = (256, 256)
small_train_pipeline = [
    *train_pipeline[:2],
    dict(type='RandomResize', scale=(320, 320), ratio_range=(0.75, 1.75), keep_ratio=True),
    dict(type='RandomCrop', crop_size=small_crop_size, cat_max_ratio=0.9),
    *train_pipeline[4:],
]
small_test_pipeline = [test_pipeline[0], dict(type='Resize', scale=(384, 384), keep_ratio=True), *test_pipeline[2:]]
small_cam_pipeline = [*small_test_pipeline[:2], cam_pipeline[-1]]
small_sizes = [
    dict(type='Resize', scale=(int(384 * r),) * 2, keep_ratio=True) for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
]
small_tta_pipeline = [
    tta_pipeline[0],
    dict(type='TestTimeAug', transforms=[small_sizes, *tta_pipeline[1]['transforms'][1:]]),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='aream_mm.PseudoMaskDataset', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='aream_mm.MaskDataset', pipeline=test_pipeline, test_mode=True),
)
test_dataloader = val_dataloader
pseudo_mask_dataloader = dict(  # of tools/test.py --pseudo-masks
    batch_size=4,
    num_workers=4,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(type='aream_mm.ImageTagDataset', pipeline=cam_pipeline, test_mode=True),
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
