# Stage 2 on VOC with the transformer of stage 1: as segmenter_vit-s_voc.py, starting from that of aream_vit_voc.py.
#
#   python tools/converters/mmpretrain_vit.py work_dirs/aream_vit_voc/epoch_60.pth work_dirs/aream_vit_voc/vit.pth \
#       --to mmseg
#   python tools/train.py configs/seg/segmenter_deit-s_voc.py
#
# Expect: it has not been measured yet.
# Other masks: --cfg-options train_dataloader.dataset.mask_dir=work_dirs/…/pseudo_masks
_base_ = 'segmenter_vit-s_voc.py'
model = dict(
    pretrained='work_dirs/aream_vit_voc/vit.pth',
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),  # DeiT's
    backbone=dict(patch_bias=True),
)
