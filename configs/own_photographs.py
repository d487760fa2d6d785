# Your own photographs and tags to pseudo masks, on a laptop: a DINOv2 ViT-S/14 whose patches say what is where, and
# whose attention says what belongs together. Small enough for two CPU cores.
#
#   python tools/train.py configs/own_photographs.py
#
# Expect: it has not been measured on photographs of yours. The choices are those of aream_vit_animals.py, whose masks
# have 77.2 and 78.2 mIoU on VOC's photographs (two seeds).
#
# Folder, tags and classes are set in _base_/datasets/own.py; nothing has to be edited here.
_base_ = ['_base_/datasets/own_tags.py', '_base_/models/aream_dinov2.py', '_base_/default_runtime.py']

model = dict(
    # DINOv3 instead of DINOv2: backbone=dict(name='vit_small_patch16_dinov3'), with timm from 1.0.20 on.
    head=dict(num_classes=len(_base_.classes) - _base_.background),
    # Without background there is no threshold: each pixel is its best class.
    train_cfg=dict(low=0.35, high=0.55) if _base_.background else dict(low=None, high=None),
    # The validation logs the background score that your photographs suggest ("Threshold chosen without masks"). If it
    # is another, write the masks anew with it: see docs/own_photographs.md.
    test_cfg=dict(background=0.55 if _base_.background else None),
)
# The heads start from nothing, and what the ViT knows already must not be spoilt.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.002)}),
)
# 260 steps of 16 photographs: 4 times each of 1,000, 70 times each of 60. With more than 1,000, take a quarter of their
# number, here or by --cfg-options max_iters=…; the lines below follow from it.
max_iters = 260
# Steps of classification alone, before its CAMs teach the attention. Without background a photograph of one tag is of
# one class everywhere, which teaches little: then they are three quarters.
warm_up = max_iters // 4 if _base_.background else max_iters * 3 // 4
param_scheduler = dict(type='CosineAnnealingLR', eta_min_ratio=0.01, by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=max(max_iters // 4, 1), max_keep_ckpts=2),
)
log_processor = dict(by_epoch=False)
custom_hooks = [dict(type='aream_mm.WarmUpHook', end=warm_up, by_epoch=False), _base_.pseudo_masks]
