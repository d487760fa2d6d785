# AReAM on MCTformer-V2 (arXiv 2305.03112), COCO 2014: DeiT-S, 60 epochs of which the first 10 are classification alone,
# all settings as in aream_vit_voc.py.
#
#   python tools/converters/coco.py data/coco
#   python tools/train.py configs/aream_vit_coco.py
#
# Expect: not yet measured. Pseudo masks are written to work_dirs/aream_vit_coco/pseudo_masks.
_base_ = ['_base_/datasets/coco_tags.py', '_base_/models/aream_vit.py', '_base_/default_runtime.py']
num_classes = 80
model = dict(backbone=dict(num_class_tokens=num_classes), head=dict(num_classes=num_classes))
max_epochs = 60
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4 * 64 / 512, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'class_tokens': dict(decay_mult=0.0), 'pos_embed': dict(decay_mult=0.0)},
    ),
)
param_scheduler = dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min=1e-5, convert_to_iter_based=True)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [
    dict(type='aream_mm.WarmUpHook', end=10),
    dict(
        type='aream_mm.PseudoMaskHook',
        dataloader=_base_.pseudo_mask_dataloader,
        test_cfg=dict(refine=dict(type='aream_mm.PAR')),
    ),
    dict(type='aream_mm.AffinityProfileHook', dataloader=_base_.val_dataloader),
]
