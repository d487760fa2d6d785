# Stage 2 on COCO 2014: mmseg's SegFormer MiT-B2 on the pseudo masks of stage 1, 80k iterations.
#
#   python tools/train.py configs/seg/segformer_mit-b2_coco.py
#   python tools/test.py configs/seg/segformer_mit-b2_coco.py work_dirs/segformer_mit-b2_coco/iter_80000.pth --tta
#
# Expect: it has not been measured yet.
# Other masks: --cfg-options train_dataloader.dataset.mask_dir=work_dirs/…/pseudo_masks
_base_ = ['../_base_/models/segformer_mit-b2.py', '../_base_/datasets/coco_pseudo.py', '../_base_/seg_runtime.py']
model = dict(data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=81))
train_cfg = dict(max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
