# Stage 2 on VOC: mmseg's DeepLabV3+ ResNet-50 on the pseudo masks of stage 1, 20k iterations.
#
#   python tools/train.py configs/seg/deeplabv3plus_r50_voc.py
#   python tools/test.py configs/seg/deeplabv3plus_r50_voc.py work_dirs/deeplabv3plus_r50_voc/iter_20000.pth --tta
#
# Expect: not yet measured. Other masks: --cfg-options train_dataloader.dataset.mask_dir=work_dirs/…/pseudo_masks
_base_ = [
    'mmseg::_base_/models/deeplabv3plus_r50-d8.py',
    '../_base_/datasets/voc_pseudo.py',
    '../_base_/seg_runtime.py',
    'mmseg::_base_/schedules/schedule_20k.py',
]
# Without avg_non_ignore the loss is averaged over ignored pixels too, and pseudo masks are full of them.
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(num_classes=21, loss_decode=dict(avg_non_ignore=True)),
    auxiliary_head=dict(num_classes=21, loss_decode=dict(avg_non_ignore=True)),
)
default_hooks = _base_.safe_hooks
