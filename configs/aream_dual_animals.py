_base_ = ['_base_/datasets/animals_tags.py', '_base_/models/aream_dual.py', '_base_/default_runtime.py']
model = dict(head=dict(num_classes=6))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={'backbone.cnn': dict(lr_mult=0.1), 'backbone.vit': dict(lr_mult=0.01)},
    ),
)
max_epochs = 6
param_scheduler = dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min_ratio=0.01, convert_to_iter_based=True)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [
    dict(type='aream_mm.WarmUpHook', end=2),
    dict(type='aream_mm.PseudoMaskHook', dataloader=_base_.pseudo_mask_dataloader, test_cfg=dict(refine=True)),
]
