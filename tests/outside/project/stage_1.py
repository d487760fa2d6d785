# Stage 1 on a data set of one's own: what differs from own_photographs.py.
_base_ = 'aream_mm::aream/own_photographs.py'
custom_imports = dict(imports=['scenes'])
images = dict(type='Scenes', data_root='data', ann_file='train.txt')
tag_file = 'data/tags.csv'

model = dict(head=dict(num_classes=5))  # without background
loader = dict(dataset=dict(dataset=dict(images, _delete_=True), tag_file=tag_file))
train_dataloader, val_dataloader, test_dataloader = loader, loader, loader
# A list replaces that of the base as a whole: its first hook as it is, the one that writes masks with our images.
tagged = dict(_base_.pseudo_mask_dataloader.dataset, dataset=images, tag_file=tag_file)
mask_loader = dict(_base_.pseudo_mask_dataloader, dataset=tagged)
custom_hooks = [_base_.custom_hooks[0], dict(_base_.custom_hooks[1], dataloader=mask_loader)]
