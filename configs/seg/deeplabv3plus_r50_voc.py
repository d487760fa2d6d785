# Stage 2 on VOC: mmseg's DeepLabV3+ ResNet-50 on the pseudo masks of stage 1, 20k iterations.
#
#   python tools/train.py configs/seg/deeplabv3plus_r50_voc.py
#   python tools/test.py configs/seg/deeplabv3plus_r50_voc.py work_dirs/deeplabv3plus_r50_voc/iter_20000.pth --tta
#
# Expect: it has not been measured yet.
# Other masks: --cfg-options train_dataloader.dataset.mask_dir=work_dirs/…/pseudo_masks
_base_ = ['../_base_/models/deeplabv3plus_r50.py', '../_base_/datasets/voc_pseudo.py', '../_base_/seg_runtime.py']
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(num_classes=21),
    auxiliary_head=dict(num_classes=21),
)
train_cfg = dict(max_iters=20000, val_interval=2000)
