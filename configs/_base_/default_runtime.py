# Of stage 1: checkpoints, the best of them, logs, and pictures of the CAMs.
_base_ = 'mmseg::_base_/default_runtime.py'
log_processor = dict(by_epoch=True)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2, save_best='auto'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
    threshold_curve=dict(type='aream_mm.ThresholdCurveHook'),
    cam_pictures=dict(type='aream_mm.CAMPictureHook'),
)
