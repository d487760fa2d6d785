# TransCAM (arXiv 2203.07239), the baseline of aream_conformer_voc.py: all its settings, without AReAM.
#
#   python tools/train.py configs/transcam_voc.py
#
# Expect: it has not been measured yet. Pseudo masks are written to work_dirs/transcam_voc/pseudo_masks.
_base_ = 'aream_conformer_voc.py'
model = dict(attention_loss=None)
custom_hooks = _base_.custom_hooks[1:]  # there is nothing to warm up for
