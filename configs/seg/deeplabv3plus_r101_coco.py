# Stage 2 on COCO 2014: mmseg's DeepLabV3+ ResNet-101 on the pseudo masks of stage 1, 80k iterations.
#
#   python tools/train.py configs/seg/deeplabv3plus_r101_coco.py
#   python tools/test.py configs/seg/deeplabv3plus_r101_coco.py work_dirs/deeplabv3plus_r101_coco/iter_80000.pth --tta
#
# Expect: it has not been measured yet.
# Other masks: --cfg-options train_dataloader.dataset.mask_dir=work_dirs/…/pseudo_masks
_base_ = 'deeplabv3plus_r50_coco.py'
model = dict(pretrained='open-mmlab://resnet101_v1c', backbone=dict(depth=101))
