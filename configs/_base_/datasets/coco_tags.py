# COCO 2014 for stage 1: the 82,783 images of `train2014`, those without any of the 80 classes left out.
#
# While training, CAMs are measured on the first 5,000 images of the list, and tools/test.py measures them on all of it;
# to do that while training too: --cfg-options val_dataloader.dataset.dataset.indices=None
_base_ = ['coco.py', 'tags.py']
tagged = dict(dataset=_base_.dataset_train, tag_file=_base_.tag_file, drop_untagged=True)
train_dataloader = dict(dataset=tagged)
val_dataloader = dict(dataset=dict(tagged, dataset=dict(_base_.dataset_train, indices=5000)))
test_dataloader = dict(dataset=tagged)
pseudo_mask_dataloader = dict(dataset=tagged)
layer_entropy_dataloader = dict(dataset=tagged)
pseudo_masks = dict(dataloader=pseudo_mask_dataloader)
affinity_profile = dict(dataloader=val_dataloader)
