# Baseline: the plain CAM of a CNN on VOC train_aug. ResNet-50 with stride 16, global average pooling, no transformer.
#
#   python tools/train.py configs/cnn_cam_voc.py
#
# Expect: it has not been measured yet. Pseudo masks are written to work_dirs/cnn_cam_voc/pseudo_masks.
_base_ = 'aream_vit_voc.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='aream_mm.CNNBackbone',
        cnn=dict(type='aream_mm.TimmCNN', name='resnet50', out_indices=(4,), output_stride=16, pretrained=True),
    ),
    head=dict(in_channels=2048, kernel_size=1),
    attention_loss=None,
)
optim_wrapper = dict(optimizer=dict(lr=5e-4), paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}))
max_epochs = 20
param_scheduler = dict(epochs=max_epochs, warm_up=1, eta_min=1e-6)
train_cfg = dict(max_epochs=max_epochs)
custom_hooks = [_base_.pseudo_masks]  # there is no loss to wait with, no affinity to measure
