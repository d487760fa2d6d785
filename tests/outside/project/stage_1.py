# Stage 1 on a data set of one's own: what differs from own_photographs.py, and nothing else.
_base_ = 'aream_mm::aream/own_photographs.py'
custom_imports = dict(imports=['scenes'])
data_root = 'data'

pictures = dict(type='Scenes', data_root=data_root, ann_file='train.txt')
own = dict(dataset=dict(pictures, _delete_=True), tag_file=data_root + '/tags.csv')
train_dataloader = dict(dataset=own)
val_dataloader = dict(dataset=own)
test_dataloader = dict(dataset=own)
# What is in a list replaces that of the base.
loader = _base_.pseudo_mask_dataloader
loader.dataset.merge(dict(own))
custom_hooks = [_base_.custom_hooks[0], dict(_base_.custom_hooks[1], dataloader=loader)]
model = dict(head=dict(num_classes=5))
