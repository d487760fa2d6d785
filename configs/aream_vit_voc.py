# AReAM on MCTformer-V2 (arXiv 2305.03112): DeiT-S, 60 epochs of which the first 10 are classification alone.
#
#   python tools/train.py configs/aream_vit_voc.py
#
# Expect: the paper reports 67.93 mIoU for the seeds on VOC `train`, at the threshold that is best on `train`. This
# config has not been measured yet. Pseudo masks are written to work_dirs/aream_vit_voc/pseudo_masks.
_base_ = ['_base_/datasets/voc_tags.py', '_base_/models/aream_vit.py', '_base_/schedules/aream_vit.py']
custom_hooks = [dict(type='aream_mm.WarmUpHook', end=10), _base_.pseudo_masks, _base_.affinity_profile]
