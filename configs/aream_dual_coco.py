# AReAM on DualBranch: EfficientNet-Lite0 for the class map, DINOv2 ViT-S/14 for the affinity, COCO 2014.
#
#   python tools/converters/coco.py data/coco
#   python tools/train.py configs/aream_dual_coco.py
#
# Expect: not yet measured. Pseudo masks are written to work_dirs/aream_dual_coco/pseudo_masks.
_base_ = ['_base_/datasets/coco_tags.py', '_base_/models/aream_dual.py', '_base_/default_runtime.py']
num_classes = 80
model = dict(head=dict(num_classes=num_classes))
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
param_scheduler = dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min_ratio=0.01, convert_to_iter_based=True)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [
    dict(type='aream_mm.WarmUpHook', end=4),
    dict(
        type='aream_mm.PseudoMaskHook',
        dataloader=_base_.pseudo_mask_dataloader,
        test_cfg=dict(refine=dict(type='aream_mm.PAR')),
    ),
    dict(type='aream_mm.AffinityProfileHook', dataloader=_base_.val_dataloader),
]
