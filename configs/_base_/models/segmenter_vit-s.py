# mmseg's Segmenter ViT-S. `sgd` is mmseg's for ADE20K; see largefov_resnet38.py for how it is used.
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
sgd = dict(optimizer=dict(lr=0.001, weight_decay=0.0))
