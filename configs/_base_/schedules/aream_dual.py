# Stage 1 of models/aream_dual.py. A config says how long it trains classification alone.
_base_ = '../default_runtime.py'
max_epochs = 20
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'backbone.cnn': dict(lr_mult=0.1), 'backbone.vit': dict(lr_mult=0.01)},
    ),
)
param_scheduler = dict(type='CosineAnnealingLR', eta_min_ratio=0.01, convert_to_iter_based=True)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
default_hooks = dict(checkpoint=dict(save_best='multi-label/mAP'))  # of the tags of `val`
