# Learned affinity (PSA, arXiv 1803.10464) on VOC train_aug: an AffinityNet on a dilated ResNet-50 (the paper has a
# ResNet-38), trained on the masks of aream_vit_voc.py where they are sure. Loss, radius, heads and walk are the
# paper's. Crops, batch and epochs are those that its authors publish. The optimiser is not theirs.
#
# The commands make masks with a band, the AffinityNet, and masks refined by its random walk:
#
#   python tools/test.py configs/aream_vit_voc.py work_dirs/aream_vit_voc/epoch_60.pth --pseudo-masks \
#       --cfg-options custom_hooks.1.out_dir=work_dirs/aream_vit_voc/band_masks custom_hooks.1.test_cfg.band=0.35,0.55
#   python tools/train.py configs/affinity_net_voc.py
#   python tools/test.py configs/aream_vit_voc_walk.py work_dirs/aream_vit_voc/epoch_60.pth --pseudo-masks
#
# Expect: it has not been measured yet.
_base_ = ['_base_/models/affinity_net_resnet50.py', '_base_/datasets/voc_pseudo.py', '_base_/seg_runtime.py']
crop_size = (448, 448)
model = dict(_base_.affinity_net, data_preprocessor=dict(_base_.affinity_net.data_preprocessor, size=crop_size))
train_pipeline = [
    *_base_.train_pipeline[:2],
    # Around the size at which aream_vit_voc.py makes its CAMs, and so the walk its planes.
    dict(type='RandomResize', scale=(512, 512), ratio_range=(0.5, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    *_base_.train_pipeline[4:],
]
train_dataloader = dict(dataset=dict(mask_dir='work_dirs/aream_vit_voc/band_masks', pipeline=train_pipeline))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}),
)
max_iters = 10600  # 8 epochs of batches of 8
param_scheduler = dict(type='PolyLR', eta_min=1e-5, power=0.9, by_epoch=False)
train_cfg = dict(max_iters=max_iters)
# There is nothing to validate: an affinity has no truth, and what the walk makes of it the third command measures.
val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None
default_hooks = dict(checkpoint=dict(interval=1000))
