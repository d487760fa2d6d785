# Stage 1 on the drawn demo set: tags → CAM → pseudo masks, by the way of own_photographs.py.
#
# The class map is that of an ImageNet EfficientNet-Lite0. The transformer starts from nothing: it looks at the features
# of a second one, which is not trained, and what AReAM teaches it from the class map is all that it knows of which
# places belong together. no_aream_demo.py is the same without AReAM.
#
#   python tools/draw_demo.py data/demo
#   python tools/converters/efficientnet_lite0.py data/demo_weights/tf_efficientnet_lite0.pth
#   python tools/train.py configs/demo/aream_demo.py
#
# Expect: see the table that `make demo` ends with.
_base_ = ['../_base_/datasets/tags.py', '../_base_/models/aream_dual.py', '../_base_/default_runtime.py']
data_root = 'data/demo'
tag_file = data_root + '/tags.csv'
classes = ('background', 'fish', 'boat', 'beetle', 'mushroom', 'ball')
weights = 'data/demo_weights/tf_efficientnet_lite0.pth'

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
photographs = dict(
    type='aream_mm.PhotographDataset',
    metainfo=dict(classes=classes),
    data_root=data_root,
    data_prefix=dict(img_path='images', seg_map_path='masks'),
    ann_file='train.txt',
)
tagged = dict(dataset=photographs, tag_file=tag_file)
train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(tagged, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=2, dataset=dict(tagged, dataset=dict(photographs, ann_file='val.txt'), pipeline=test_pipeline)
)
test_dataloader = dict(num_workers=2, dataset=dict(tagged, pipeline=test_pipeline))  # those that get pseudo masks
pseudo_mask_dataloader = dict(
    _base_.pseudo_mask_dataloader,
    num_workers=2,
    dataset=dict(_base_.pseudo_mask_dataloader.dataset, **tagged, pipeline=cam_pipeline),
)

max_iters, warm_up = 160, 80  # of 16 of the 320 images
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'backbone.cnn': dict(lr_mult=0.1)}),
)
param_scheduler = dict(type='CosineAnnealingLR', eta_min_ratio=0.01, by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
custom_hooks = [
    dict(type='aream_mm.WarmUpHook', end=warm_up, by_epoch=False),
    dict(
        type='aream_mm.PseudoMaskHook',
        dataloader=pseudo_mask_dataloader,
        test_cfg=dict(background=0.4, refine=dict(type='aream_mm.PAR', dilations=(1, 2, 4, 8))),
    ),
]
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=warm_up),  # that of step 80 is where no_aream_demo.py goes on
)
log_processor = dict(by_epoch=False)
