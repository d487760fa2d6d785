# DualBranch: EfficientNet-Lite0 gives the class map, a DINOv2 ViT-S/14 the affinity.
num_classes = 20
model = dict(
    type='aream_mm.CAMSegmentor',
    # RGB in 0..1: each branch normalises for itself, and PAR reads the same images.
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[0] * 3, std=[255] * 3, bgr_to_rgb=True, size_divisor=1),
    backbone=dict(
        type='aream_mm.DualBranch',
        cnn=dict(type='aream_mm.TimmCNN', name='tf_efficientnet_lite0', out_indices=(3, 4), pretrained=True),
        vit=dict(
            type='aream_mm.AttentionViT',
            name='vit_small_patch14_dinov2',
            img_size=224,
            pretrained=True,
            drop_path_rate=0.1,
        ),
    ),
    head=dict(
        type='aream_mm.CAMHead', num_classes=num_classes, in_channels=112 + 320, kernel_size=1, token_channels=384
    ),
    attention_loss=dict(type='aream_mm.AReAMLoss', layer_index=7, loss_weight=0.1),
    train_cfg=dict(low=0.35, high=0.55),
    test_cfg=dict(background=0.4, propagate_layers=(11,)),
)
