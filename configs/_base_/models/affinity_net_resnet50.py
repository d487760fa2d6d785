# AffinityNet on a dilated ResNet-50. It is `model` where it is trained, and part of `random_walk` where masks
# are written.
affinity_net = dict(
    type='aream_mm.AffinityNet',
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type='mmseg.ResNetV1c',
        depth=50,
        out_indices=(1, 2, 3),
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        contract_dilation=True,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnet50_v1c'),
    ),
    in_channels=(512, 1024, 2048),
    channels=(128, 256, 512),
)
random_walk = dict(type='aream_mm.RandomWalk', net=affinity_net)
