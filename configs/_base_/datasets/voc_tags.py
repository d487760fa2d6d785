# PASCAL VOC 2012 as photographs and tags: the 10,582 images of train_aug, tags from the field's cls_labels.npy. CAMs
# and pseudo masks are measured on the 1,464 `train` images.
# `python tools/converters/voc.py data/VOCdevkit/VOC2012` tells whether all of it is there, and makes train_aug.
data_root = 'data/VOCdevkit/VOC2012'
tag_file = data_root + '/cls_labels.npy'
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
cam_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(512, 512), keep_ratio=True),
    dict(type='aream_mm.PackTagInputs'),
]
test_pipeline = [*cam_pipeline[:-1], dict(type='LoadAnnotations'), cam_pipeline[-1]]

voc_folders = dict(img_path='JPEGImages', seg_map_path='SegmentationClass')
dataset_train = dict(
    type='mmseg.PascalVOCDataset',
    data_root=data_root,
    data_prefix=voc_folders,
    ann_file='ImageSets/Segmentation/train.txt',
)
# VOC's own masks cover `train` alone. SegmentationClassAug is read only where tag_file=None makes tags of its masks.
dataset_train_aug = dict(
    dataset_train,
    data_prefix=dict(voc_folders, seg_map_path='SegmentationClassAug'),
    ann_file='ImageSets/Segmentation/trainaug.txt',
)

train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='aream_mm.ImageTagDataset', dataset=dataset_train_aug, tag_file=tag_file, pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    batch_sampler=dict(type='aream_mm.SizeBatchSampler'),
    dataset=dict(
        type='aream_mm.ImageTagDataset',
        dataset=dataset_train,
        tag_file=tag_file,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
pseudo_mask_dataloader = dict(
    batch_size=16,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='aream_mm.ImageTagDataset',
        dataset=dict(dataset_train_aug, data_prefix=voc_folders),
        tag_file=tag_file,
        pipeline=cam_pipeline,
        test_mode=True,
    ),
)
layer_entropy_dataloader = dict(
    pseudo_mask_dataloader,
    batch_size=64,
    dataset=dict(
        pseudo_mask_dataloader['dataset'],
        dataset=dataset_train_aug,
        pipeline=[cam_pipeline[0], dict(type='Resize', scale=(crop_size, crop_size)), cam_pipeline[-1]],
    ),
)

# save_best='auto' goes by the first: cam/mIoU_best, or multi-label/mAP where there are no masks.
val_evaluator = [
    dict(type='aream_mm.CAMMetric'),
    dict(type='mmpretrain.AveragePrecision'),
    dict(type='mmpretrain.AveragePrecision', average=None),
    dict(type='mmpretrain.MultiLabelMetric', thr=0.5),
]
test_evaluator = val_evaluator
