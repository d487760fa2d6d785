# Six classes of PASCAL VOC 2012 for stage 1; pixels of other classes are ignored, images without any of the six are
# left out. Lists and tags as in voc.py, of whatever part of VOC the lists name.
_base_ = ['voc.py', 'tags.py']
metainfo = dict(classes=('background', 'cat', 'cow', 'dog', 'horse', 'person', 'sheep'))
train_pipeline = _base_.light_pipeline

train, train_aug, aug_masks = [
    dict(dataset=dict(images, metainfo=metainfo), tag_file=_base_.tag_file, drop_untagged=True)
    for images in (_base_.dataset_train, _base_.dataset_train_aug, _base_.dataset_aug_masks)
]
train_dataloader = dict(batch_size=16, num_workers=2, drop_last=True, dataset=dict(aug_masks, pipeline=train_pipeline))
val_dataloader = dict(batch_size=4, num_workers=2, dataset=train)
test_dataloader = val_dataloader
pseudo_mask_dataloader = dict(batch_size=4, num_workers=2, dataset=train_aug)
layer_entropy_dataloader = dict(batch_size=16, num_workers=2, dataset=aug_masks)
pseudo_masks = dict(dataloader=pseudo_mask_dataloader, test_cfg=dict(refine=dict(dilations=(1, 2, 4, 8))))
affinity_profile = dict(dataloader=val_dataloader)
