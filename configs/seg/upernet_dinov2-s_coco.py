# Stage 2 on COCO 2014: mmseg's UPerNet on a DINOv2 ViT-S/14, on the pseudo masks of stage 1, 80k iterations.
# timm fetches the weights; from a file: --cfg-options model.backbone.pretrained=FILE
#
#   python tools/train.py configs/seg/upernet_dinov2-s_coco.py
#   python tools/test.py configs/seg/upernet_dinov2-s_coco.py work_dirs/upernet_dinov2-s_coco/iter_80000.pth --tta
#
# Expect: it has not been measured yet.
# Other masks: --cfg-options train_dataloader.dataset.mask_dir=work_dirs/…/pseudo_masks
_base_ = ['../_base_/models/upernet_dinov2-s.py', '../_base_/datasets/coco_pseudo.py', '../_base_/seg_runtime.py']
model = dict(decode_head=dict(num_classes=81), auxiliary_head=dict(num_classes=81))
train_cfg = dict(max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
