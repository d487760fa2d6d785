# AReAM on a ViT of one class token on VOC train_aug: the class map is read from the patches, and the affinity of all
# layers propagates it. Any plain ViT serves, such as DINO's: set model.backbone.name and model.head.token_channels.
#
#   python tools/train.py configs/aream_vit_single_voc.py
#
# Expect: it has not been measured yet. Pseudo masks are written to work_dirs/aream_vit_single_voc/pseudo_masks.
_base_ = 'aream_vit_voc.py'
model = dict(backbone=dict(num_class_tokens=1), head=dict(kernel_size=1, token_channels=384))
