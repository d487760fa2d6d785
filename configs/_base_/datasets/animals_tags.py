# Six classes of PASCAL VOC 2012 as photographs and tags; pixels of the other classes are ignored. Lists and tags as in
# voc_tags.py, of whatever part of VOC the lists name.
data_root = 'data/VOCdevkit/VOC2012'
tag_file = data_root + '/cls_labels.npy'
metainfo = dict(classes=('background', 'cat', 'cow', 'dog', 'horse', 'person', 'sheep'))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.RandomResizedCrop', scale=224, crop_ratio_range=(0.4, 1.0)),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmpretrain.ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3),
    dict(type='aream_mm.PackTagInputs'),
]
cam_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(512, 512), keep_ratio=True),
    dict(type='aream_mm.PackTagInputs'),
]
test_pipeline = [*cam_pipeline[:-1], dict(type='LoadAnnotations'), cam_pipeline[-1]]

dataset_train_aug = dict(
    type='mmseg.PascalVOCDataset',
    metainfo=metainfo,
    data_root=data_root,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='ImageSets/Segmentation/trainaug.txt',
)
dataset_train = dict(dataset_train_aug, ann_file='ImageSets/Segmentation/train.txt')

train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='aream_mm.ImageTagDataset',
        dataset=dataset_train_aug,
        tag_file=tag_file,
        drop_untagged=True,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='aream_mm.ImageTagDataset',
        dataset=dataset_train,
        tag_file=tag_file,
        drop_untagged=True,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
pseudo_mask_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='aream_mm.ImageTagDataset',
        dataset=dataset_train_aug,
        tag_file=tag_file,
        drop_untagged=True,
        pipeline=cam_pipeline,
        test_mode=True,
    ),
)

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
