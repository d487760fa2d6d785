# Stage 2 on the drawn demo set: DeepLabV3+ on EfficientNet-Lite0, trained on the pseudo masks of aream_demo.py.
#
#   python tools/train.py configs/demo/deeplabv3plus_demo.py
#
# Expect: see the table that `make demo` ends with.
_base_ = ['../_base_/models/deeplabv3plus_lite0.py', '../_base_/seg_runtime.py']
data_root = 'data/demo/pictures'
mask_dir = 'work_dirs/aream_demo/pseudo_masks'
weights = 'data/demo/tf_efficientnet_lite0.pth'

model = dict(
    data_preprocessor=dict(size=(160, 160)),
    backbone=dict(pretrained=weights),
    decode_head=dict(dilations=(1, 3, 6), num_classes=6),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(160, 160), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(160, 160)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
pictures = dict(
    type='aream_mm.DemoDataset',
    data_root=data_root,
    data_prefix=dict(img_path='images', seg_map_path='masks'),
    ann_file='train.txt',
)
train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='aream_mm.PseudoMaskDataset', dataset=pictures, mask_dir=mask_dir, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='aream_mm.MaskDataset',
        dataset=dict(pictures, ann_file='val.txt'),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

max_epochs = 12
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.3)}),
)
param_scheduler = dict(type='PolyLR', eta_min=1e-5, power=0.9, end=max_epochs, convert_to_iter_based=True)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    _base_.safe_hooks,
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(_base_.safe_hooks.checkpoint, interval=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
log_processor = dict(by_epoch=True)
