# mmseg's SegFormer MiT-B2. The schedule is mmseg's for ADE20K.
_base_ = 'mmseg::_base_/models/segformer_mit-b0.py'
model = dict(
    type='aream_mm.RefinedEncoderDecoder',
    backbone=dict(
        embed_dims=64,
        num_layers=[3, 4, 6, 3],
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmsegmentation/v0.5/pretrain/segformer/mit_b2_20220624-66e8bf70.pth',
        ),
    ),
    # Without avg_non_ignore the loss is averaged over ignored pixels too, and pseudo masks are full of them.
    decode_head=dict(in_channels=[64, 128, 320, 512], loss_decode=dict(avg_non_ignore=True)),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, weight_decay=0.01),
    paramwise_cfg=dict(
        custom_keys={'pos_block': dict(decay_mult=0.0), 'norm': dict(decay_mult=0.0), 'head': dict(lr_mult=10.0)}
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, end=1500),
    dict(type='PolyLR', power=1.0, by_epoch=False, begin=1500),
]
