# Stage 2 on the animals of VOC 2012: DeepLabV3+ on EfficientNet-Lite0, trained on the pseudo masks of
# aream_vit_animals.py. Small enough for two CPU cores.
#
#   python tools/train.py configs/seg/deeplabv3plus_lite0_animals.py --cfg-options data_root=… \
#       model.backbone.pretrained=…
#
# Expect: 66.3 mIoU on 445 `val` photographs, one seed, on masks of 76.8. On those of aream_dual_animals.py it was 63.4,
# 62.9 in another run, and took 15 minutes on two CPU cores. docs/results.md tells what that rests on.
_base_ = ['../_base_/models/deeplabv3plus_lite0.py', '../_base_/datasets/animals_pseudo.py', '../_base_/seg_runtime.py']
model = dict(data_preprocessor=dict(size=_base_.small_crop_size), decode_head=dict(num_classes=7))
max_iters = 1000
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=250))
