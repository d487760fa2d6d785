# MCTformer-V2 with AReAM: a DeiT-S with one class token per class.
num_classes = 20
model = dict(
    type='aream_mm.CAMSegmentor',
    # RGB in 0..1: the network normalises for itself, and PAR reads the same images.
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[0] * 3, std=[255] * 3, bgr_to_rgb=True, size_divisor=1),
    backbone=dict(
        type='aream_mm.AttentionViT',
        name='deit_small_patch16_224',
        pretrained=True,
        num_class_tokens=num_classes,
        drop_path_rate=0.1,
    ),
    head=dict(type='aream_mm.CAMHead', num_classes=num_classes, in_channels=384),
    attention_loss=dict(type='aream_mm.AReAMLoss', layer_index=7, loss_weight=0.1),
    train_cfg=dict(low=0.35, high=0.55),
    test_cfg=dict(background=0.43, fit='pad'),
)
