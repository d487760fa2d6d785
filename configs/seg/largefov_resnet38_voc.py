# Stage 2 on VOC with the paper's network: DeepLab-LargeFOV on ResNet-38, 80k iterations of 4 crops
# (30 epochs of train_aug).
#
#   python tools/train.py configs/seg/largefov_resnet38_voc.py \
#       --cfg-options model.backbone.pretrained=res38_cls.pth
#   python tools/test.py configs/seg/largefov_resnet38_voc.py work_dirs/largefov_resnet38_voc/iter_80000.pth --tta
#
# The weights come with PSA's and MCTformer's programs; timm and mmpretrain have neither them nor the network.
#
# Expect: it has not been measured yet.
# Other masks: --cfg-options train_dataloader.dataset.mask_dir=work_dirs/…/pseudo_masks
_base_ = ['../_base_/models/largefov_resnet38.py', '../_base_/datasets/voc_pseudo.py', '../_base_/seg_runtime.py']
crop_size = (321, 321)
train_pipeline = [
    dict(step, crop_size=crop_size) if step.type == 'RandomCrop' else step for step in _base_.train_pipeline
]
model = dict(data_preprocessor=dict(size=crop_size), decode_head=dict(num_classes=21))
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
