# Does AReAM help? One network, one budget, one choice after another; on six classes of VOC 2012, or on any folder of
# its layout.
#
#   python tools/experiment.py configs/experiment_animals.py --cfg-options data_root=… \
#       model.backbone.cnn.pretrained=… model.backbone.vit.pretrained=…
#
# trains `start` once per seed, with the ViT as it was published. From there it trains each of `rows` once per seed. It
# measures the CAMs of each, as each of `propagations` makes them, on `images` of `val_dataloader`, evenly spread.
# Nothing is chosen on `val`.
#
# Expect: the seeds have 62.8 ± 1.6 mIoU without AReAM and 65.9 ± 2.1 with it from layer 9 on, both with drop path. It
# takes 4 to 5 minutes per row and seed on one of two cores. See docs/results.md.
_base_ = 'aream_dual_animals.py'
# Of whole images: the label of a crop is worse, and a crop may have lost what the tags name.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(224, 224)),
    *_base_.train_pipeline[2:],  # mirror, colours
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(num_workers=1)
max_iters = 64
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', T_max=max_iters, eta_min_ratio=0.01, by_epoch=False)
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=max_iters)
# Without drop path the pass that is trained serves for the label too; the mirror image would take one of its own.
model = dict(
    backbone=dict(cnn=dict(frozen=True), vit=dict(drop_path_rate=0.0)),
    attention_loss=dict(layer_index=7, loss_weight=0.3),
    train_cfg=dict(mirror=False),
    test_cfg=dict(scales=(0.5,)),
)
optim_wrapper = dict(
    type='aream_mm.BFloat16OptimWrapper', paramwise_cfg=dict(custom_keys={'backbone.vit': dict(lr_mult=0.05)})
)
custom_hooks = []
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=max_iters, max_keep_ckpts=1, save_best=None),
    visualization=dict(draw=False),
)
log_processor = dict(by_epoch=False)

seeds = (0, 1, 2)
images = 219
refine = dict(type='aream_mm.PAR', dilations=(1, 2, 4, 8))
stage_2 = '{{ fileDirname }}/seg/deeplabv3plus_lite0_animals.py'
as_published = {'model.backbone.vit.frozen_layers': 12, 'model.attention_loss': None}
start = {
    **as_published,
    'model.backbone.cnn.frozen': False,
    'train_dataloader.batch_size': 16,
    'train_dataloader.dataset.pipeline': _base_.train_pipeline,
    'train_cfg.max_iters': 192,
    'param_scheduler.T_max': 192,
    'default_hooks.checkpoint.interval': 192,
}
entropy = dict(type='aream_mm.LayerEntropyHook', dataloader=_base_.layer_entropy_dataloader, num_images=96)
drop_path = {'model.backbone.vit.drop_path_rate': 0.1}
rows = {
    'ViT as published': as_published,
    'no AReAM': {'model.attention_loss': None},
    'AReAM': {},
    'AReAM, weight 0.1': {'model.attention_loss.loss_weight': 0.1},
    'AReAM, weight 1': {'model.attention_loss.loss_weight': 1.0},
    'AReAM, weight 3': {'model.attention_loss.loss_weight': 3.0},
    'AReAM, weight 1, entropy': {
        'model.attention_loss.loss_weight': 1.0,
        'model.attention_loss.weights': 'entropy',
        'custom_hooks': [entropy],
    },
    'AReAM, from layer 9': {'model.attention_loss.layer_index': 9},
    'AReAM, from layer 11': {'model.attention_loss.layer_index': 11},
    'AReAM, label not propagated': {'model.attention_loss.propagate_layers': ()},
    'AReAM, label by layer 11': {
        'model.attention_loss.propagate_layers': (11,),
        'model.attention_loss.propagate_steps': 3,
    },
    'no AReAM, drop path': {**drop_path, 'model.attention_loss': None},
    'AReAM, drop path': drop_path,
    'AReAM, from layer 9, drop path': {**drop_path, 'model.attention_loss.layer_index': 9},
}
baselines = ('no AReAM', 'no AReAM, drop path')
propagations = {
    'none': ((), 1),
    'layer 11': ((11,), 1),
    'layer 11, three steps': ((11,), 3),
    'layers 7-11': ((7, 8, 9, 10, 11), 1),
    'all layers': (None, 1),
    'all layers, three steps': (None, 3),
}
