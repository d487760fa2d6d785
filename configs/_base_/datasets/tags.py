# Stage 1: augmentation, loaders, figures and the hooks that need a loader. A file beside this one names the images
# and tags of each loader, and once more the loader of each hook, which has a copy.
crop_size = 224

# mmpretrain's 'timm_increasing', spelt out because the preset's names carry no scope.
policies = [
    dict(type='mmpretrain.AutoContrast'),
    dict(type='mmpretrain.Equalize'),
    dict(type='mmpretrain.Invert'),
    dict(type='mmpretrain.Rotate', magnitude_range=(0, 30)),
    dict(type='mmpretrain.Posterize', magnitude_range=(4, 0)),
    dict(type='mmpretrain.Solarize', magnitude_range=(256, 0)),
    dict(type='mmpretrain.SolarizeAdd', magnitude_range=(0, 110)),
    dict(type='mmpretrain.ColorTransform', magnitude_range=(0, 0.9)),
    dict(type='mmpretrain.Contrast', magnitude_range=(0, 0.9)),
    dict(type='mmpretrain.Brightness', magnitude_range=(0, 0.9)),
    dict(type='mmpretrain.Sharpness', magnitude_range=(0, 0.9)),
    dict(type='mmpretrain.Shear', magnitude_range=(0, 0.3), direction='horizontal'),
    dict(type='mmpretrain.Shear', magnitude_range=(0, 0.3), direction='vertical'),
    dict(type='mmpretrain.Translate', magnitude_range=(0, 0.45), direction='horizontal'),
    dict(type='mmpretrain.Translate', magnitude_range=(0, 0.45), direction='vertical'),
]
train_pipeline = [  # DeiT's augmentation
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.RandomResizedCrop', scale=crop_size, backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='mmpretrain.RandAugment',
        policies=policies,
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic'),
    ),
    dict(
        type='mmpretrain.RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[103.53, 116.28, 123.675],
        fill_std=[57.375, 57.12, 58.395],
    ),
    dict(type='aream_mm.PackTagInputs'),
]
# For the networks that learn from few images on a CPU.
light_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='aream_mm.ResizedCrop', scale=crop_size, crop_ratio_range=(0.4, 1.0)),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmpretrain.ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3),
    dict(type='aream_mm.PackTagInputs'),
]
whole_pipeline = [  # the same without crops: what is tagged is there
    light_pipeline[0],
    dict(type='Resize', scale=(crop_size, crop_size)),
    *light_pipeline[2:],
]
cam_pipeline = [
    dict(type='LoadImageFromFile'),
    # Brings images of any size to the one that model.test_cfg is made for, and keeps memory in bounds.
    dict(type='Resize', scale=(512, 512), keep_ratio=True),
    dict(type='aream_mm.PackTagInputs'),
]
test_pipeline = [*cam_pipeline[:-1], dict(type='LoadAnnotations'), cam_pipeline[-1]]
native_cam_pipeline = [cam_pipeline[0], cam_pipeline[-1]]  # images at their own size, as the paper has them
native_test_pipeline = [cam_pipeline[0], dict(type='LoadAnnotations'), cam_pipeline[-1]]
tag_pipeline = [cam_pipeline[0], dict(type='Resize', scale=(crop_size, crop_size)), cam_pipeline[-1]]

train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='aream_mm.ImageTagDataset', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    batch_sampler=dict(type='aream_mm.SizeBatchSampler'),
    dataset=dict(type='aream_mm.ImageTagDataset', pipeline=test_pipeline, test_mode=True),
)
test_dataloader = val_dataloader
pseudo_mask_dataloader = dict(
    batch_size=16,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(type='aream_mm.ImageTagDataset', pipeline=cam_pipeline, test_mode=True),
)
layer_entropy_dataloader = dict(
    pseudo_mask_dataloader,
    batch_size=64,
    # Where there is no evidence none is spread.
    dataset=dict(type='aream_mm.ImageTagDataset', pipeline=tag_pipeline, test_mode=True, drop_untagged=True),
)

tag_evaluator = [
    dict(type='aream_mm.AveragePrecision'),
    dict(type='mmpretrain.MultiLabelMetric', thr=0.5),
]
val_evaluator = [dict(type='aream_mm.CAMMetric'), *tag_evaluator]
test_evaluator = val_evaluator

# For a config's custom_hooks.
pseudo_masks = dict(
    type='aream_mm.PseudoMaskHook',
    dataloader=pseudo_mask_dataloader,
    test_cfg=dict(refine=dict(type='aream_mm.PAR')),
)
affinity_profile = dict(type='aream_mm.AffinityProfileHook', dataloader=val_dataloader)
