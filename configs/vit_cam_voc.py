# Baseline: the plain CAM of a ViT on VOC train_aug. DeiT-S with its single class token, no AReAM, no propagation.
#
#   python tools/train.py configs/vit_cam_voc.py
#
# Expect: it has not been measured yet. Pseudo masks are written to work_dirs/vit_cam_voc/pseudo_masks.
_base_ = 'aream_vit_voc.py'
model = dict(
    backbone=dict(num_class_tokens=1),
    head=dict(kernel_size=1, token_channels=384),
    attention_loss=None,
    test_cfg=dict(propagate_layers=()),
)
custom_hooks = _base_.custom_hooks[1:]  # there is no loss to wait with
