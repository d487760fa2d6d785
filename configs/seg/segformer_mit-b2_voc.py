# Stage 2 on VOC: mmseg's SegFormer MiT-B2 on the pseudo masks of stage 1, 20k iterations.
#
#   python tools/train.py configs/seg/segformer_mit-b2_voc.py
#   python tools/test.py configs/seg/segformer_mit-b2_voc.py work_dirs/segformer_mit-b2_voc/iter_20000.pth --tta
#
# Expect: it has not been measured yet.
# Other masks: --cfg-options train_dataloader.dataset.mask_dir=work_dirs/…/pseudo_masks
_base_ = ['../_base_/models/segformer_mit-b2.py', '../_base_/datasets/voc_pseudo.py', '../_base_/seg_runtime.py']
model = dict(data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=21))
train_cfg = dict(max_iters=20000, val_interval=2000)
