# Stage 1 on the drawn demo set: tags → CAM → pseudo masks.
#
# The class map is that of an ImageNet EfficientNet-Lite0. The transformer starts from nothing: it looks at the features
# of a second one, which is not trained, and what AReAM teaches it from the class map is all that it knows of which
# places belong together. no_aream_demo.py is the same without AReAM.
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
            stem=dict(
                type='aream_mm.TimmCNN',
                name='tf_efficientnet_lite0',
                out_indices=(3, 4),
                pretrained=weights,
                frozen=True,
            ),
        ),
    ),
    head=dict(num_classes=5, token_channels=192),
    # The label is the class map's alone: the shallow layers know nothing yet.
    attention_loss=dict(layer_index=3, loss_weight=1.0, propagate_layers=()),
    test_cfg=dict(background=0.5, propagate_layers=(3, 4, 5), propagate_steps=2, scales=(2.0,)),
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

max_epochs, warm_up = 8, 4
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
    dict(type='aream_mm.WarmUpHook', end=warm_up),
    dict(
        type='aream_mm.PseudoMaskHook',
        dataloader=pseudo_mask_dataloader,
        test_cfg=dict(background=0.4, refine=dict(type='aream_mm.PAR', dilations=(1, 2, 4, 8))),
    ),
]
default_hooks = dict(checkpoint=dict(interval=warm_up))  # that of epoch 4 is where no_aream_demo.py goes on
