# Learned affinity (PSA, arXiv 1803.10464) on six animal-and-person classes of VOC 2012: an AffinityNet on
# EfficientNet-Lite0, trained on the masks of aream_vit_animals.py where they are sure. Small enough for two CPU cores.
#
# The commands make masks with a band, the AffinityNet, and masks refined by its random walk:
#
#   python tools/test.py configs/aream_vit_animals.py work_dirs/aream_vit_animals/epoch_4.pth --pseudo-masks \
#       --cfg-options custom_hooks.1.out_dir=work_dirs/aream_vit_animals/band_masks \
#       custom_hooks.1.test_cfg.band=0.45,0.65
#   python tools/train.py configs/affinity_net_animals.py
#   python tools/test.py configs/aream_vit_animals_walk.py work_dirs/aream_vit_animals/epoch_4.pth --pseudo-masks
#
# Weights from a file: model.backbone.pretrained=… of the second command.
#
# Expect: the masks with a band took 9.4 minutes on one of two CPU cores, and the training took 11.8.
# aream_vit_animals_walk.py says what the walked masks are.
_base_ = ['_base_/models/affinity_net_lite0.py', '_base_/datasets/animals_pseudo.py', '_base_/seg_runtime.py']
model = dict(
    _base_.affinity_net, data_preprocessor=dict(_base_.affinity_net.data_preprocessor, size=_base_.small_crop_size)
)
train_dataloader = dict(dataset=dict(mask_dir='work_dirs/aream_vit_animals/band_masks'))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}),
)
max_iters = 500
param_scheduler = dict(type='PolyLR', eta_min=1e-5, power=0.9, by_epoch=False)
train_cfg = dict(max_iters=max_iters)
# There is nothing to validate: an affinity has no truth, and what the walk makes of it the third command measures.
val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=250))
