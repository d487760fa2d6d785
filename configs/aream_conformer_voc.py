# AReAM on TransCAM (arXiv 2305.03112 and 2203.07239): Conformer-S, 12 epochs of which the first 2 are classification
# alone.
#
#   python tools/train.py configs/aream_conformer_voc.py
#
# mmpretrain's ImageNet weights are fetched; from a file: --cfg-options model.backbone.pretrained=FILE
#
# Expect: the paper reports 70.69 mIoU for the seeds on VOC `train`, at the threshold that is best on `train`. This
# config has not been measured yet. Pseudo masks are written to work_dirs/aream_conformer_voc/pseudo_masks.
_base_ = ['_base_/datasets/voc_tags.py', '_base_/models/aream_conformer.py', '_base_/default_runtime.py']
crop_size = 384
train_pipeline = [  # TransCAM's augmentation; what is padded takes no part in the loss of AReAM
    dict(type='LoadImageFromFile'),
    dict(type='aream_mm.LoadImageArea'),
    dict(type='RandomChoiceResize', scales=[(side, side) for side in range(320, 641, 16)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mmpretrain.ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1),
    dict(type='RandomCrop', crop_size=(crop_size, crop_size)),
    dict(type='Pad', size=(crop_size, crop_size), pad_val=dict(img=(104, 116, 124), seg=255)),
    dict(type='aream_mm.PackTagInputs'),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(batch_size=4)  # images of up to 768 pixels and their mirror images
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-5, weight_decay=0.01),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys={'head': dict(lr_mult=10.0)}),
)
max_epochs = 12
param_scheduler = dict(type='aream_mm.TimmCosineLR', epochs=max_epochs, warm_up=1, eta_min=1e-6)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
default_hooks = dict(checkpoint=dict(save_best='multi-label/mAP'))  # of the tags of `val`
custom_hooks = [
    dict(type='aream_mm.WarmUpHook', end=2),
    dict(_base_.pseudo_masks, dataloader=dict(_base_.pseudo_mask_dataloader, batch_size=4)),
    _base_.affinity_profile,
]
