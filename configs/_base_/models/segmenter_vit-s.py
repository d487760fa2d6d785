# mmseg's Segmenter ViT-S. The schedule is mmseg's for ADE20K.
_base_ = 'mmseg::_base_/models/segmenter_vit-b16_mask.py'
model = dict(
    type='aream_mm.RefinedEncoderDecoder',
    pretrained='https://mmassets.onedl.ai/mmsegmentation/v0.5/pretrain/segmenter/vit_small_p16_384_20220308-410f6037.pth',
    backbone=dict(embed_dims=384, num_heads=6),
    decode_head=dict(
        in_channels=384,
        channels=384,
        embed_dims=384,
        num_heads=6,
        # Without it the loss is averaged over ignored pixels too, and pseudo masks are full of them.
        loss_decode=dict(avg_non_ignore=True),
    ),
)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.001, momentum=0.9, weight_decay=0.0), clip_grad=None
)
param_scheduler = dict(type='PolyLR', eta_min=1e-4, power=0.9, by_epoch=False)
