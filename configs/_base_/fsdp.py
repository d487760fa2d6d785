# The weights, gradients and optimizer of stage 1 shared out among the processes, for networks too large for one GPU: a
# further base of a config, see docs/running.md.
strategy = dict(
    type='FSDPStrategy',
    model_wrapper=dict(type='MMFullyShardedDataParallel', auto_wrap_policy='aream_mm.models.vit.is_layer'),
    # One checkpoint with the keys of the whole network, put together in the memory of the first machine.
    state_dict_cfg=dict(
        state_dict_type='FULL_STATE_DICT',
        state_dict_config=dict(type='FullStateDictConfig', rank0_only=True, offload_to_cpu=True),
        optim_state_dict_config=dict(type='FullOptimStateDictConfig', rank0_only=True, offload_to_cpu=True),
    ),
)
