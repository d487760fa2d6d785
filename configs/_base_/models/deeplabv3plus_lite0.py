# mmseg's DeepLabV3+ on EfficientNet-Lite0 at stride 16: small enough for two CPU cores.
_base_ = 'mmseg::_base_/models/deeplabv3plus_r50-d8.py'
model = dict(
    type='aream_mm.RefinedEncoderDecoder',
    # RGB in 0..1: TimmCNN normalises for itself.
    data_preprocessor=dict(mean=[0] * 3, std=[255] * 3),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='aream_mm.TimmCNN',
        name='tf_efficientnet_lite0',
        out_indices=(1, 4),
        output_stride=16,
        pretrained=True,
    ),
    decode_head=dict(
        in_channels=320,
        in_index=1,
        channels=128,
        dilations=(1, 6, 12, 18),
        c1_in_channels=24,
        c1_channels=24,
        norm_cfg=dict(type='BN', requires_grad=True),
        # Without it the loss is averaged over ignored pixels too.
        loss_decode=dict(avg_non_ignore=True),
    ),
    auxiliary_head=None,
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}),
)
param_scheduler = dict(type='PolyLR', eta_min=1e-5, power=0.9, by_epoch=False)
