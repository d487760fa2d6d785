# Six classes of PASCAL VOC 2012 as photographs and tags; pixels of other classes are ignored, pictures without any of
# the six are left out. Lists and tags as in voc_tags.py, of whatever part of VOC the lists name.
_base_ = 'voc_tags.py'
metainfo = dict(classes=('background', 'cat', 'cow', 'dog', 'horse', 'person', 'sheep'))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.RandomResizedCrop', scale=224, crop_ratio_range=(0.4, 1.0)),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmpretrain.ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3),
    dict(type='aream_mm.PackTagInputs'),
]
animals = dict(dataset=dict(metainfo=metainfo), drop_untagged=True)
train_dataloader = dict(batch_size=16, num_workers=2, drop_last=True, dataset=dict(**animals, pipeline=train_pipeline))
val_dataloader = dict(batch_size=4, num_workers=2, dataset=animals)
test_dataloader = val_dataloader
pseudo_mask_dataloader = dict(batch_size=4, num_workers=2, dataset=animals)
layer_entropy_dataloader = dict(batch_size=16, num_workers=2, dataset=animals)
