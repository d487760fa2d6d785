# A DINOv2 ViT-S/14: the class map is read from its patches, its attention propagates it. The class token is one.
num_classes = 20
model = dict(
    type='aream_mm.CAMSegmentor',
    # RGB in 0..1: the network normalises for itself, and PAR reads the same images.
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[0] * 3, std=[255] * 3, bgr_to_rgb=True, size_divisor=1),
    backbone=dict(
        type='aream_mm.AttentionViT',
        name='vit_small_patch14_dinov2',
        img_size=224,
        pretrained=True,
        frozen_layers=7,  # the shallow layers are the teacher, and frozen they cost less memory
    ),
    head=dict(
        type='aream_mm.CAMHead',
        num_classes=num_classes,
        in_channels=384,
        kernel_size=1,
        token_channels=384,
        pooling='log_mean_exp',
    ),
    attention_loss=dict(type='aream_mm.AReAMLoss', layer_index=9, loss_weight=0.3),
    train_cfg=dict(low=0.35, high=0.55),
    test_cfg=dict(background=0.55, propagate_layers=(11,), propagate_steps=3, scales=(2 / 3,)),
)
