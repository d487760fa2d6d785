# Stage 2 on the drawn demo set: DeepLabV3+ on EfficientNet-Lite0, trained on the pseudo masks of aream_demo.py.
#
#   python tools/train.py configs/demo/deeplabv3plus_demo.py
#
# Expect: see the table that `make demo` ends with.
_base_ = ['../_base_/models/deeplabv3plus_lite0.py', '../_base_/datasets/own_pseudo.py', '../_base_/seg_runtime.py']
data_root = 'data/demo'
tag_file = data_root + '/tags.csv'
classes = ('background', 'fish', 'boat', 'beetle', 'mushroom', 'ball')
mask_dir = 'work_dirs/aream_demo/pseudo_masks'
crop_size = (160, 160)

model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(pretrained='data/demo_weights/tf_efficientnet_lite0.pth'),
    decode_head=dict(dilations=(1, 3, 6), num_classes=6),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=crop_size, ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
scales = [dict(type='Resize', scale=(int(160 * r),) * 2, keep_ratio=True) for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[scales, *_base_.tta_pipeline[-1].transforms[1:]]),
]
photographs = dict(metainfo=dict(classes=classes), data_root=data_root)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        dataset=dict(photographs, ann_file='train.txt'), mask_dir=mask_dir, tag_file=tag_file, pipeline=train_pipeline
    ),
)
test_dataloader = dict(dataset=dict(dataset=dict(photographs, ann_file='val.txt'), pipeline=test_pipeline))
pseudo_mask_dataloader = dict(
    dataset=dict(
        dataset=dict(photographs, ann_file='train.txt'),
        tag_file=tag_file,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='aream_mm.PackTagInputs')],
    )
)

max_iters = 240  # of 16 of the 320 images
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.3)}))
train_cfg = dict(max_iters=max_iters)
val_cfg = None  # measured when it is done
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=20))
