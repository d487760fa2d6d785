# DeepLab-LargeFOV on ResNet-38, stage 2 of the paper and of those before it: a 3 × 3 convolution of dilation 12.
_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'
model = dict(
    type='aream_mm.RefinedEncoderDecoder',
    pretrained=None,
    backbone=dict(_delete_=True, type='aream_mm.ResNet38', pretrained='data/weights/res38_cls.pth'),
    decode_head=dict(
        in_channels=4096,
        in_index=0,
        channels=1024,
        num_convs=1,
        dilation=12,
        concat_input=False,
        dropout_ratio=0.5,
        norm_cfg=None,
        # Without it the loss is averaged over ignored pixels too, and pseudo masks are full of them.
        loss_decode=dict(avg_non_ignore=True),
    ),
    auxiliary_head=None,
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=7e-4, momentum=0.9, weight_decay=1e-5),
    paramwise_cfg=dict(custom_keys={'decode_head': dict(lr_mult=10)}),
    clip_grad=None,
)
param_scheduler = dict(type='PolyLR', power=0.9, by_epoch=False)
