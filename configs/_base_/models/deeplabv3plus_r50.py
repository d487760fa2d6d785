# mmseg's DeepLabV3+ ResNet-50, and its schedule.
_base_ = 'mmseg::_base_/models/deeplabv3plus_r50-d8.py'
# Without avg_non_ignore the loss is averaged over ignored pixels too, and pseudo masks are full of them.
model = dict(
    type='aream_mm.RefinedEncoderDecoder',
    decode_head=dict(loss_decode=dict(avg_non_ignore=True)),
    auxiliary_head=dict(loss_decode=dict(avg_non_ignore=True)),
)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0005), clip_grad=None
)
param_scheduler = dict(type='PolyLR', eta_min=1e-4, power=0.9, by_epoch=False)
