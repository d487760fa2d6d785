# AReAM on DualBranch: EfficientNet-Lite0 for the class map, DINOv2 ViT-S/14 for the affinity, COCO 2014.
#
#   python tools/converters/coco.py data/coco
#   python tools/train.py configs/aream_dual_coco.py
#
# Expect: it has not been measured yet. Pseudo masks are written to work_dirs/aream_dual_coco/pseudo_masks.
_base_ = ['_base_/datasets/coco_tags.py', '_base_/models/aream_dual.py', '_base_/schedules/aream_dual.py']
num_classes = 80
model = dict(head=dict(num_classes=num_classes))
custom_hooks = [dict(type='aream_mm.WarmUpHook', end=4), _base_.pseudo_masks, _base_.affinity_profile]
