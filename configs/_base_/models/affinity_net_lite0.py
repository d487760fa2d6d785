# AffinityNet on EfficientNet-Lite0: small enough for two CPU cores. It is `model` where it is trained, and part of
# `random_walk` where masks are written.
affinity_net = dict(
    type='aream_mm.AffinityNet',
    # RGB in 0..1: TimmCNN normalises for itself.
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor', mean=[0] * 3, std=[255] * 3, bgr_to_rgb=True, seg_pad_val=255
    ),
    backbone=dict(type='aream_mm.TimmCNN', name='tf_efficientnet_lite0', out_indices=(2, 3, 4), pretrained=True),
    in_channels=(40, 112, 320),
    channels=(32, 64, 64),
)
random_walk = dict(type='aream_mm.RandomWalk', net=affinity_net)
