# AReAM on six animal-and-person classes of VOC 2012: a DINOv2 ViT-S/14, whose patches say what is where and whose
# attention says what belongs together. Small enough for two CPU cores.
#
#   python tools/train.py configs/aream_vit_animals.py --cfg-options data_root=… model.backbone.pretrained=…
#
# `pretrained` takes a file in timm's key names; without the option timm's own weights are fetched.
#
# Expect: without AReAM CAMs have 78.7 mIoU on 110 of the `train` photographs, one seed. The weights had been trained on
# saliency: see docs/results.md. Pseudo masks are written to work_dirs/aream_vit_animals/pseudo_masks.
_base_ = ['_base_/models/aream_dinov2.py', '_base_/datasets/animals_tags.py', '_base_/schedules/animals.py']
model = dict(head=dict(num_classes=6))
train_dataloader = dict(dataset=dict(pipeline=_base_.whole_pipeline))
optim_wrapper = dict(optimizer=dict(lr=5e-3), paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.002)}))
custom_hooks = [dict(type='aream_mm.WarmUpHook', end=1), _base_.pseudo_masks, _base_.affinity_profile]
