# Of stage 1: checkpoints, the best of them, logs, and pictures of the CAMs. docs/interruptions.md tells what a run that
# is interrupted finds again.
_base_ = 'mmseg::_base_/default_runtime.py'
log_processor = dict(by_epoch=True)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='aream_mm.SafeCheckpointHook', interval=1, max_keep_ckpts=2, save_best='auto'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
    threshold_curve=dict(type='aream_mm.ThresholdCurveHook'),
    cam_pictures=dict(type='aream_mm.CAMPictureHook'),
    random_state=dict(type='aream_mm.RandomStateHook'),
    invalid_loss=dict(type='aream_mm.InvalidLossHook'),
)
randomness = dict(seed=0)
