# Stage 2 on VOC: mmseg's Segmenter ViT-S on the pseudo masks of stage 1, 20k iterations.
#
#   python tools/train.py configs/seg/segmenter_vit-s_voc.py
#
# Expect: not yet measured. Other masks: --cfg-options train_dataloader.dataset.mask_dir=work_dirs/…/pseudo_masks
_base_ = [
    'mmseg::_base_/models/segmenter_vit-b16_mask.py',
    '../_base_/datasets/voc_pseudo.py',
    '../_base_/seg_runtime.py',
    'mmseg::_base_/schedules/schedule_20k.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    pretrained='https://mmassets.onedl.ai/mmsegmentation/v0.5/pretrain/segmenter/vit_small_p16_384_20220308-410f6037.pth',
    backbone=dict(embed_dims=384, num_heads=6),
    decode_head=dict(
        in_channels=384,
        channels=384,
        embed_dims=384,
        num_heads=6,
        num_classes=21,
        # Without it the loss is averaged over ignored pixels too, and pseudo masks are full of them.
        loss_decode=dict(avg_non_ignore=True),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.001, weight_decay=0.0))
default_hooks = _base_.safe_hooks
