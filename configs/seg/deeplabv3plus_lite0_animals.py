# Stage 2 on the animals of VOC 2012: DeepLabV3+ on EfficientNet-Lite0, trained on the pseudo masks of
# aream_dual_animals.py. Small enough for two CPU cores.
#
#   python tools/train.py configs/seg/deeplabv3plus_lite0_animals.py --cfg-options data_root=… \
#       model.backbone.pretrained=…
#
# Expect: 63.4 mIoU on 445 `val` photographs, 62.9 in another run, 60.1 to 63.2 on better masks with two seeds; 15
# minutes on two CPU cores. See the README for what that rests on, and docs/chain.md for the masks.
_base_ = [
    '../_base_/models/deeplabv3plus_lite0.py',
    '../_base_/datasets/animals_pseudo.py',
    '../_base_/seg_runtime.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=7))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}),
)
max_iters = 1000
param_scheduler = dict(type='PolyLR', eta_min=1e-5, power=0.9, end=max_iters, by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    _base_.safe_hooks,
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(_base_.safe_hooks.checkpoint, by_epoch=False, interval=250),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
