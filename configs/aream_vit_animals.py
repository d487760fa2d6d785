# AReAM on six animal-and-person classes of VOC 2012: MCTformer-V2 on a DINOv2 ViT-S/14, one class token a class.
#
#   python tools/train.py configs/aream_vit_animals.py --cfg-options data_root=… model.backbone.pretrained=…
#
# `pretrained` takes a file in timm's key names; without the option timm's own weights are fetched.
#
# Expect: not measured yet. Pseudo masks are written to work_dirs/aream_vit_animals/pseudo_masks.
_base_ = ['_base_/datasets/animals_tags.py', '_base_/models/aream_vit.py', '_base_/default_runtime.py']
model = dict(
    backbone=dict(name='vit_small_patch14_dinov2', img_size=224, num_class_tokens=6),
    head=dict(num_classes=6),
    aream=dict(loss_weight=0.3),
    test_cfg=dict(scales=(2 / 3,)),  # the affinity of all layers propagates
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}),
)
max_epochs = 4
param_scheduler = dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min_ratio=0.01, convert_to_iter_based=True)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [
    dict(type='aream_mm.WarmUpHook', end=1),
    dict(
        type='aream_mm.PseudoMaskHook',
        dataloader=_base_.pseudo_mask_dataloader,
        test_cfg=dict(refine=dict(type='aream_mm.PAR', dilations=(1, 2, 4, 8))),
    ),
    dict(type='aream_mm.AffinityProfileHook', dataloader=_base_.val_dataloader),
]
randomness = dict(seed=0)
