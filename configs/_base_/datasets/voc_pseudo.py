# PASCAL VOC 2012 for stage 2: the train_aug pictures with the pseudo masks of stage 1, measured on the masks of `val`.
# The masks of `test` are the evaluation server's. Its pictures, written for `tools/converters/voc_submission.py`:
#
#   python tools/test.py CONFIG CHECKPOINT --tta --out predictions --cfg-options test_evaluator.format_only=True \
#       test_dataloader.dataset.dataset.ann_file=ImageSets/Segmentation/test.txt
#
# Predictions refined by a dense CRF, with or without --tta, and the masks of the training pictures, kept to their tags:
#
#   python tools/test.py CONFIG CHECKPOINT --pseudo-masks --cfg-options model.test_cfg.refine.type=aream_mm.DenseCRF \
#       model.test_cfg.refine.bilateral_sxy=67
data_root = 'data/VOCdevkit/VOC2012'
tag_file = data_root + '/cls_labels.npy'
mask_dir = 'work_dirs/aream_vit_voc/pseudo_masks'
crop_size = (512, 512)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)],
            [dict(type='RandomFlip', prob=p, direction='horizontal') for p in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
dataset_train_aug = dict(
    type='mmseg.PascalVOCDataset',
    data_root=data_root,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='ImageSets/Segmentation/trainaug.txt',
)
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='aream_mm.PseudoMaskDataset', dataset=dataset_train_aug, mask_dir=mask_dir, pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='aream_mm.MaskDataset',
        dataset=dict(dataset_train_aug, ann_file='ImageSets/Segmentation/val.txt'),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
pseudo_mask_dataloader = dict(  # of tools/test.py --pseudo-masks
    batch_size=4,
    num_workers=4,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='aream_mm.ImageTagDataset',
        dataset=dataset_train_aug,
        tag_file=tag_file,
        pipeline=[*test_pipeline[:2], dict(type='aream_mm.PackTagInputs')],
        test_mode=True,
    ),
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
