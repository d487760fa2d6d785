# mmseg's UPerNet on a DINOv2 ViT-S/14. The schedule is mmseg's for its ViT.
_base_ = 'mmseg::_base_/models/upernet_vit-b16_ln_mln.py'
model = dict(
    type='aream_mm.RefinedEncoderDecoder',
    # RGB in 0..1: TimmCNN normalises for itself. Crops of 512 pixels are padded to whole patches, images too.
    data_preprocessor=dict(mean=[0] * 3, std=[255] * 3, size=(518, 518), test_cfg=dict(size_divisor=14)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='aream_mm.TimmCNN',
        name='vit_small_patch14_dinov2',
        out_indices=(2, 5, 8, 11),
        pretrained=True,
        architecture=dict(img_size=518, dynamic_img_size=True),
    ),
    neck=dict(in_channels=[384] * 4, out_channels=384),
    # Without avg_non_ignore the loss is averaged over ignored pixels too, and pseudo masks are full of them.
    decode_head=dict(in_channels=[384] * 4, loss_decode=dict(avg_non_ignore=True)),
    auxiliary_head=dict(in_channels=384, loss_decode=dict(avg_non_ignore=True)),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, weight_decay=0.01),
    paramwise_cfg=dict(
        custom_keys={'pos_embed': dict(decay_mult=0.0), 'cls_token': dict(decay_mult=0.0), 'norm': dict(decay_mult=0.0)}
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, end=1500),
    dict(type='PolyLR', power=1.0, by_epoch=False, begin=1500),
]
