# Stage 1 of models/aream_vit.py as the paper trains it, in batches of 64: DeiT's rates, by epoch; class tokens decay,
# positions do not. Pseudo masks come from the epoch with the best tags on `val`, as there: no pixel mask chooses it. A
# config says how long it trains classification alone.
#
# Not as there: noise of RandomErasing is clipped to 8 bits, and the same drop path serves the pass that is trained and
# its label, which saves a pass.
_base_ = '../default_runtime.py'
max_epochs = 60
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4 * 64 / 512, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'pos_embed': dict(decay_mult=0.0)},
    ),
)
param_scheduler = dict(type='aream_mm.TimmCosineLR', epochs=max_epochs, warm_up=5)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
default_hooks = dict(checkpoint=dict(save_best='multi-label/mAP'))
