# This is stage 2's: mmseg's, with loops and hooks by iterations, and what a run that is interrupted needs (see
# docs/running.md). A config says how long it trains, and the learning rate of its network goes by that.
_base_ = 'mmseg::_base_/default_runtime.py'
train_cfg = dict(type='IterBasedTrainLoop')
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='aream_mm.SafeCheckpointHook', by_epoch=False, interval=2000, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
    random_state=dict(type='aream_mm.RandomStateHook'),
    invalid_loss=dict(type='aream_mm.InvalidLossHook'),
)
tta_model = dict(type='aream_mm.RefinedTTAModel')  # refines as model.test_cfg says
visualizer = dict(type='aream_mm.PathVisualizer')
randomness = dict(seed=0)
