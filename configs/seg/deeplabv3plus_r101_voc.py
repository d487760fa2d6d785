# Stage 2 on VOC: mmseg's DeepLabV3+ ResNet-101 on the pseudo masks of stage 1, 20k iterations.
#
#   python tools/train.py configs/seg/deeplabv3plus_r101_voc.py
#   python tools/test.py configs/seg/deeplabv3plus_r101_voc.py work_dirs/deeplabv3plus_r101_voc/iter_20000.pth --tta
#
# Expect: it has not been measured yet.
# Other masks: --cfg-options train_dataloader.dataset.mask_dir=work_dirs/…/pseudo_masks
_base_ = 'deeplabv3plus_r50_voc.py'
model = dict(pretrained='open-mmlab://resnet101_v1c', backbone=dict(depth=101))
