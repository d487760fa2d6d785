# mmseg's DeepLabV3+ ResNet-50.
_base_ = 'mmseg::_base_/models/deeplabv3plus_r50-d8.py'
# Without avg_non_ignore the loss is averaged over ignored pixels too, and pseudo masks are full of them.
model = dict(
    type='aream_mm.RefinedEncoderDecoder',
    decode_head=dict(loss_decode=dict(avg_non_ignore=True)),
    auxiliary_head=dict(loss_decode=dict(avg_non_ignore=True)),
)
