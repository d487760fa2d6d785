# Stage 2 on COCO 2014 with the paper's network: DeepLab-LargeFOV on ResNet-38, 160k iterations of 4 crops
# (8 epochs of train2014).
#
#   python tools/train.py configs/seg/largefov_resnet38_coco.py \
#       --cfg-options model.backbone.pretrained=res38_cls.pth
#   python tools/test.py configs/seg/largefov_resnet38_coco.py work_dirs/largefov_resnet38_coco/iter_160000.pth --tta
#
# The weights come with PSA's and MCTformer's programs; timm and mmpretrain have neither them nor the network.
#
# Expect: it has not been measured yet.
# Other masks: --cfg-options train_dataloader.dataset.mask_dir=work_dirs/…/pseudo_masks
_base_ = ['../_base_/models/largefov_resnet38.py', '../_base_/datasets/coco_pseudo.py', '../_base_/seg_runtime.py']
crop_size = (321, 321)
train_pipeline = [
    dict(step, crop_size=crop_size) if step.type == 'RandomCrop' else step for step in _base_.train_pipeline
]
model = dict(data_preprocessor=dict(size=crop_size), decode_head=dict(num_classes=81))
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_iters=160000, val_interval=16000)
default_hooks = dict(checkpoint=dict(interval=16000))
