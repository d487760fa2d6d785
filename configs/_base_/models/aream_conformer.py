# AReAM on TransCAM: a Conformer-S, whose CNN branch gives the class map and whose transformer branch the affinity.
num_classes = 20
model = dict(
    type='aream_mm.CAMSegmentor',
    # RGB in 0..1: the network normalises for itself, and PAR reads the same images.
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[0] * 3, std=[255] * 3, bgr_to_rgb=True, size_divisor=1),
    backbone=dict(type='aream_mm.AttentionConformer', arch='small', pretrained=True, drop_path_rate=0.1),
    head=dict(type='aream_mm.CAMHead', num_classes=num_classes, in_channels=1024, kernel_size=1, token_channels=384),
    attention_loss=dict(type='aream_mm.AReAMLoss', layer_index=9, loss_weight=0.1),
    train_cfg=dict(low=0.35, high=0.55, scales=(0.5, 1.0, 1.5)),
    test_cfg=dict(background=0.4, scales=(0.5, 1.0, 1.5), fit='pad'),
)
