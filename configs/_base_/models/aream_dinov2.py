# A DINOv2 ViT-S/14 of one class token: its patches give the class map, and the last layer propagates it.
_base_ = 'aream_vit.py'
model = dict(
    backbone=dict(
        name='vit_small_patch14_dinov2',
        img_size=224,
        num_class_tokens=1,
        drop_path_rate=0.0,
        frozen_layers=7,  # the shallow layers are the teacher, and frozen they cost less memory
    ),
    head=dict(kernel_size=1, token_channels=384, pooling='log_mean_exp'),
    attention_loss=dict(layer_index=9, loss_weight=0.3),
    test_cfg=dict(background=0.55, fit='resize', propagate_layers=(11,), propagate_steps=3, scales=(2 / 3,)),
)
