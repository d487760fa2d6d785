# AReAM on MCTformer-V2 (arXiv 2305.03112), COCO 2014: DeiT-S, 60 epochs of which the first 10 are classification alone,
# all settings as in aream_vit_voc.py.
#
#   python tools/converters/coco.py data/coco
#   python tools/train.py configs/aream_vit_coco.py
#
# Expect: it has not been measured yet. Pseudo masks are written to work_dirs/aream_vit_coco/pseudo_masks.
_base_ = ['_base_/datasets/coco_tags.py', '_base_/models/aream_vit.py', '_base_/schedules/aream_vit.py']
num_classes = 80
model = dict(backbone=dict(num_class_tokens=num_classes), head=dict(num_classes=num_classes))
custom_hooks = [dict(type='aream_mm.WarmUpHook', end=10), _base_.pseudo_masks, _base_.affinity_profile]
