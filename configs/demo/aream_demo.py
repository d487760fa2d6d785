# Stage 1 on the drawn demo set: tags → CAM → pseudo masks.
#
# The class map is that of an ImageNet EfficientNet-Lite0. The transformer starts from nothing, and in these few steps
# its affinity does not get as far as helping the CAM (after 12 epochs it took 64 pictures from 47.6 mIoU to 26.8), so
# neither label CAM nor masks are propagated, though AReAM trains it. With pretrained attention it is the other way: see
# aream_dual_animals.py.
#
#   python tools/train.py configs/demo/aream_demo.py
#
# Expect: see the table that `make demo` ends with.
_base_ = ['../_base_/models/aream_dual.py', '../_base_/default_runtime.py']
data_root = 'data/demo/pictures'
weights = 'data/demo/tf_efficientnet_lite0.pth'
patch_size = 16

model = dict(
    backbone=dict(
        cnn=dict(pretrained=weights),
        vit=dict(
            _delete_=True,
            type='aream_mm.AttentionViT',
            name='vit_tiny_patch16_224',
            img_size=160,
            architecture=dict(depth=6, init_values=0.1),
        ),
    ),
    head=dict(num_classes=5, token_channels=192),
    aream=dict(layer_index=3, loss_weight=1.0),
    train_cfg=dict(propagate_layers=()),
    test_cfg=dict(background=0.4, propagate_layers=(), scales=(2.0,)),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.RandomResizedCrop', scale=160, crop_ratio_range=(0.5, 1.0)),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='aream_mm.PackTagInputs'),
]
cam_pipeline = [dict(type='LoadImageFromFile'), dict(type='aream_mm.PackTagInputs')]
test_pipeline = [cam_pipeline[0], dict(type='LoadAnnotations'), cam_pipeline[1]]
pictures = dict(
    type='aream_mm.DemoDataset',
    data_root=data_root,
    data_prefix=dict(img_path='images', seg_map_path='masks'),
    ann_file='train.txt',
)
train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='aream_mm.ImageTagDataset', dataset=pictures, pipeline=train_pipeline),
)
test_dataloader = dict(  # the pictures that get pseudo masks
    batch_size=16,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='aream_mm.ImageTagDataset', dataset=pictures, pipeline=test_pipeline, test_mode=True),
)
val_dataloader = dict(
    test_dataloader, dataset=dict(test_dataloader['dataset'], dataset=dict(pictures, ann_file='val.txt'))
)
pseudo_mask_dataloader = dict(
    batch_size=16,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(type='aream_mm.ImageTagDataset', dataset=pictures, pipeline=cam_pipeline, test_mode=True),
)
val_evaluator = [
    dict(type='aream_mm.CAMMetric'),
    dict(type='mmpretrain.AveragePrecision'),
    dict(type='mmpretrain.AveragePrecision', average=None),
    dict(type='mmpretrain.MultiLabelMetric', thr=0.5),
]
test_evaluator = val_evaluator

max_epochs = 8
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'backbone.cnn': dict(lr_mult=0.1)}),
)
param_scheduler = dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min_ratio=0.01, convert_to_iter_based=True)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [
    dict(type='aream_mm.WarmUpHook', end=4),
    dict(
        type='aream_mm.PseudoMaskHook',
        dataloader=pseudo_mask_dataloader,
        test_cfg=dict(background=0.3, refine=dict(type='aream_mm.PAR', dilations=(1, 2, 4, 8))),
    ),
]
