# AReAM on DualBranch: EfficientNet-Lite0 for the class map, DINOv3 ViT-S/16 for the affinity, VOC train_aug.
#
#   python tools/train.py configs/aream_dual_dinov3_voc.py
#
# Expect: not measured. timm has the network from 1.0.20 on; its weights are under Meta's DINOv3 licence. Pseudo
# masks are written to work_dirs/aream_dual_dinov3_voc/pseudo_masks.
_base_ = 'aream_dual_voc.py'
model = dict(backbone=dict(vit=dict(name='vit_small_patch16_dinov3')))
