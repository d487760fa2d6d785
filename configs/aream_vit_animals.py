# AReAM on six animal-and-person classes of VOC 2012: a DINOv2 ViT-S/14, whose patches say what is where and whose
# attention says what belongs together. Small enough for two CPU cores.
#
#   python tools/train.py configs/aream_vit_animals.py --cfg-options data_root=… model.backbone.pretrained=…
#
# `pretrained` takes a file in timm's key names; without the option timm's own weights are fetched.
#
# Expect: CAMs have 76.3 and 77.3 mIoU on 437 `train` photographs, and pseudo masks 77.2 and 78.2, two seeds; without
# AReAM the CAMs have 0.5 and 0.1 less. Training took 21 minutes on one of two CPU cores, with --amp and other work
# beside it, and the masks took 8. The weights had been trained on saliency: see docs/results.md. Pseudo masks are
# written to work_dirs/aream_vit_animals/pseudo_masks.
_base_ = ['_base_/models/aream_dinov2.py', '_base_/datasets/animals_tags.py', '_base_/schedules/animals.py']
model = dict(head=dict(num_classes=6))
train_dataloader = dict(dataset=dict(pipeline=_base_.whole_pipeline))
optim_wrapper = dict(optimizer=dict(lr=5e-3), paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.002)}))
custom_hooks = [dict(type='aream_mm.WarmUpHook', end=1), _base_.pseudo_masks, _base_.affinity_profile]
