# Stage 2 on COCO 2014: mmseg's Segmenter ViT-S on the pseudo masks of stage 1, 80k iterations.
#
#   python tools/train.py configs/seg/segmenter_vit-s_coco.py
#   python tools/test.py configs/seg/segmenter_vit-s_coco.py work_dirs/segmenter_vit-s_coco/iter_80000.pth --tta
#
# Expect: it has not been measured yet.
# Other masks: --cfg-options train_dataloader.dataset.mask_dir=work_dirs/…/pseudo_masks
_base_ = ['../_base_/models/segmenter_vit-s.py', '../_base_/datasets/coco_pseudo.py', '../_base_/seg_runtime.py']
model = dict(data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=81))
train_cfg = dict(max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
