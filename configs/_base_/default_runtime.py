# This is stage 1's: loops, checkpoints, the best of them, logs, and pictures of the CAMs. docs/running.md tells what a
# run that is interrupted finds again.
default_scope = 'mmseg'
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='aream_mm.PathVisualizer', vis_backends=vis_backends, name='visualizer')
tta_model = dict(type='SegTTAModel')
log_level = 'INFO'
log_processor = dict(by_epoch=True)
load_from, resume = None, False
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Pseudo masks come from the last step, unless save_best chooses a checkpoint: 'multi-label/mAP' by the tags of the
    # validation's images, 'cam/mIoU_best' by their pixel masks, which is more than tags.
    checkpoint=dict(type='aream_mm.SafeCheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
    threshold_curve=dict(type='aream_mm.ThresholdCurveHook'),
    cam_pictures=dict(type='aream_mm.CAMPictureHook'),
    random_state=dict(type='aream_mm.RandomStateHook'),
    invalid_loss=dict(type='aream_mm.InvalidLossHook'),
)
randomness = dict(seed=0)
