# AReAM on DINOv3 (arXiv 2508.10104): aream_vit_voc.py with a ViT-S/16 of rotary positions and four register tokens.
#
#   python tools/train.py configs/aream_dinov3_voc.py
#
# Expect: not measured. timm has the network from 1.0.20 on; its weights are under Meta's DINOv3 licence. Pseudo
# masks are written to work_dirs/aream_dinov3_voc/pseudo_masks.
_base_ = 'aream_vit_voc.py'
model = dict(backbone=dict(name='vit_small_patch16_dinov3'))
