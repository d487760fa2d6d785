# As aream_vit_voc.py, with the layers weighed by their entropy, which is measured when the warm-up ends.
#
#   python tools/train.py configs/aream_vit_entropy_voc.py
#
# Expect: the paper reports 67.73 mIoU for the seeds on VOC `train`, at the threshold that is best on `train`, with
# entropies of another model. This config has not been measured yet.
_base_ = 'aream_vit_voc.py'
model = dict(attention_loss=dict(weights='entropy'))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='aream_mm.LayerEntropyHook', dataloader=_base_.layer_entropy_dataloader),
]
