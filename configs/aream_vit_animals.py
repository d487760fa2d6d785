# AReAM on six animal-and-person classes of VOC 2012: MCTformer-V2 on a DINOv2 ViT-S/14, one class token per class.
#
#   python tools/train.py configs/aream_vit_animals.py --cfg-options data_root=… model.backbone.pretrained=…
#
# `pretrained` takes a file in timm's key names; without the option timm's own weights are fetched.
#
# Expect: CAMs have 18.3 mIoU (best threshold, `train`) after the short training in docs/results.md. The whole training
# was not measured.
# Pseudo masks are written to work_dirs/aream_vit_animals/pseudo_masks.
_base_ = ['_base_/models/aream_vit.py', '_base_/datasets/animals_tags.py', '_base_/schedules/animals.py']
model = dict(
    backbone=dict(name='vit_small_patch14_dinov2', img_size=224, num_class_tokens=6),
    head=dict(num_classes=6),
    attention_loss=dict(loss_weight=0.3),
    test_cfg=dict(scales=(2 / 3,), fit='resize'),  # the affinity of all layers propagates
)
optim_wrapper = dict(optimizer=dict(lr=5e-4), paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}))
custom_hooks = [dict(type='aream_mm.WarmUpHook', end=1), _base_.pseudo_masks, _base_.affinity_profile]
