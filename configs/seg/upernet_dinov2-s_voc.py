# Stage 2 on VOC: mmseg's UPerNet on a DINOv2 ViT-S/14, on the pseudo masks of stage 1, 20k iterations.
# timm fetches the weights; from a file: --cfg-options model.backbone.pretrained=FILE
#
#   python tools/train.py configs/seg/upernet_dinov2-s_voc.py
#   python tools/test.py configs/seg/upernet_dinov2-s_voc.py work_dirs/upernet_dinov2-s_voc/iter_20000.pth --tta
#
# Expect: it has not been measured yet.
# Other masks: --cfg-options train_dataloader.dataset.mask_dir=work_dirs/…/pseudo_masks
_base_ = ['../_base_/models/upernet_dinov2-s.py', '../_base_/datasets/voc_pseudo.py', '../_base_/seg_runtime.py']
model = dict(decode_head=dict(num_classes=21), auxiliary_head=dict(num_classes=21))
train_cfg = dict(max_iters=20000, val_interval=2000)
