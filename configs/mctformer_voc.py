# Baseline: MCTformer-V2 on VOC train_aug. As aream_vit_voc.py, without the AReAM loss.
#
#   python tools/train.py configs/mctformer_voc.py
#
# Expect: it has not been measured yet. Pseudo masks are written to work_dirs/mctformer_voc/pseudo_masks.
_base_ = 'aream_vit_voc.py'
model = dict(attention_loss=None)
custom_hooks = _base_.custom_hooks[1:]  # there is no loss to wait with
