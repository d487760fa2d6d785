# PASCAL VOC 2012 for stage 1: trained on train_aug; CAMs and pseudo masks are measured on the 1,464 `train` images.
_base_ = ['voc.py', 'tags.py']
train_dataloader = dict(dataset=dict(dataset=_base_.dataset_aug_masks, tag_file=_base_.tag_file))
val_dataloader = dict(dataset=dict(dataset=_base_.dataset_train, tag_file=_base_.tag_file))
test_dataloader = val_dataloader
pseudo_mask_dataloader = dict(dataset=dict(dataset=_base_.dataset_train_aug, tag_file=_base_.tag_file))
layer_entropy_dataloader = train_dataloader
pseudo_masks = dict(dataloader=pseudo_mask_dataloader)
affinity_profile = dict(dataloader=val_dataloader)
