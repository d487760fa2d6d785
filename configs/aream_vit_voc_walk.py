# The masks of aream_vit_voc.py, refined by the random walk of affinity_net_voc.py.
#
#   python tools/test.py configs/aream_vit_voc_walk.py work_dirs/aream_vit_voc/epoch_60.pth --pseudo-masks
#
# Expect: it has not been measured yet. The masks are written to work_dirs/aream_vit_voc/walked_masks.
_base_ = ['aream_vit_voc.py', '_base_/models/affinity_net_resnet50.py']
walk = dict(_base_.random_walk, checkpoint='work_dirs/affinity_net_voc/iter_10600.pth')
walked = dict(out_dir='work_dirs/aream_vit_voc/walked_masks', test_cfg=dict(refine_scale=1, refine=walk))
custom_hooks = [dict(_base_.pseudo_masks, **walked)]
# Nothing is trained here, and what trains the network has other hooks.
train_dataloader = train_cfg = optim_wrapper = param_scheduler = None
