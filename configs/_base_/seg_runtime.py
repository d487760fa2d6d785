# Of stage 2: mmseg's, with what a run that is interrupted needs; see docs/interruptions.md. mmseg's schedules have
# default_hooks of their own, and two bases may not name the same, so a config takes these by
#
#   default_hooks = _base_.safe_hooks
_base_ = 'mmseg::_base_/default_runtime.py'
safe_hooks = dict(
    checkpoint=dict(type='aream_mm.SafeCheckpointHook', max_keep_ckpts=2),
    random_state=dict(type='aream_mm.RandomStateHook'),
    invalid_loss=dict(type='aream_mm.InvalidLossHook'),
)
tta_model = dict(type='aream_mm.RefinedTTAModel')  # refines as model.test_cfg says
randomness = dict(seed=0)
