# Your own photographs (own.py) and their tags, for stage 1. CAMs are made of the photographs that are trained on.
_base_ = 'own.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.RandomResizedCrop', scale=224, crop_ratio_range=(0.4, 1.0)),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmpretrain.ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3),
    dict(type='aream_mm.PackTagInputs'),
]
cam_pipeline = [
    dict(type='LoadImageFromFile'),
    # Brings photographs of any size to the one that model.test_cfg is made for, and keeps memory in bounds.
    dict(type='Resize', scale=(512, 512), keep_ratio=True),
    dict(type='aream_mm.PackTagInputs'),
]
test_pipeline = [*cam_pipeline[:-1], dict(type='aream_mm.LoadAnnotationsIfAny'), cam_pipeline[-1]]

tagged = dict(
    type='aream_mm.ImageTagDataset',
    dataset=_base_.photographs,
    tag_file=_base_.tag_file,
    drop_untagged=_base_.drop_untagged,
)
# Steps are counted, not epochs, so that 60 photographs get as many as 1,000; nothing is dropped at an epoch's end.
train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(tagged, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    batch_sampler=dict(type='aream_mm.SizeBatchSampler'),
    dataset=dict(tagged, pipeline=test_pipeline, test_mode=True),
)
test_dataloader = val_dataloader
pseudo_mask_dataloader = dict(
    batch_size=4,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(tagged, pipeline=cam_pipeline, test_mode=True),
)

# save_best='auto' goes by the first that there is: cam/mIoU_best with masks, multi-label/mAP without.
val_evaluator = [
    dict(type='aream_mm.CAMMetric'),
    dict(type='mmpretrain.AveragePrecision'),
    dict(type='mmpretrain.AveragePrecision', average=None),
    dict(type='mmpretrain.MultiLabelMetric', thr=0.5),
]
test_evaluator = val_evaluator
