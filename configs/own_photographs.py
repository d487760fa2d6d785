# Your own photographs and tags to pseudo masks, on a laptop: EfficientNet-Lite0 for the class map, ViT-S/14 for the
# affinity. Small enough for two CPU cores.
#
#   python tools/train.py configs/own_photographs.py
#
# Expect: it has not been measured on photographs of yours. The choices are those of aream_dual_animals.py, whose masks
# have 68.8 mIoU on VOC's photographs. That took half an hour on two CPU cores, two thirds of it for the 260 steps.
#
# Folder, tags and classes are set in _base_/datasets/own.py; nothing has to be edited here.
_base_ = ['_base_/datasets/own_tags.py', '_base_/models/aream_dual.py', '_base_/default_runtime.py']

model = dict(
    # DINOv3 instead of DINOv2: vit=dict(name='vit_small_patch16_dinov3', frozen_layers=7), with timm from 1.0.20 on.
    backbone=dict(vit=dict(frozen_layers=7)),  # the shallow layers are the teacher, and frozen they cost less memory
    head=dict(num_classes=len(_base_.classes) - _base_.background),
    attention_loss=dict(layer_index=9, loss_weight=0.3),
    # Without background there is no threshold: each pixel is its best class.
    train_cfg=dict(low=0.35, high=0.55) if _base_.background else dict(low=None, high=None),
    # background: the validation logs the threshold that your photographs suggest ("Threshold chosen without masks").
    # If it is another, write the masks anew with it: see docs/own_photographs.md. The rest was chosen on VOC: the
    # affinity of the last layer is applied three times, on images of two thirds of the size in tags.py.
    test_cfg=dict(
        background=0.55 if _base_.background else None, propagate_layers=(11,), propagate_steps=3, scales=(2 / 3,)
    ),
)
# The heads start from nothing, the CNN has seen ImageNet, and the ViT's attention is what must not be spoilt.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'backbone.cnn': dict(lr_mult=0.1), 'backbone.vit': dict(lr_mult=0.01)}),
)
# 260 steps of 16 photographs: 4 times each of 1,000, 70 times each of 60. With more than 1,000, take a quarter of their
# number, here or by --cfg-options max_iters=…; the lines below follow from it.
max_iters = 260
# Steps of classification alone, before its CAMs teach the attention. Without background a photograph of one tag is of
# one class everywhere, which teaches little: then they are three quarters.
warm_up = max_iters // 4 if _base_.background else max_iters * 3 // 4
param_scheduler = dict(type='CosineAnnealingLR', T_max=max_iters, eta_min_ratio=0.01, by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=max(max_iters // 4, 1), max_keep_ckpts=2),
)
log_processor = dict(by_epoch=False)
custom_hooks = [dict(type='aream_mm.WarmUpHook', end=warm_up, by_epoch=False), _base_.pseudo_masks]
