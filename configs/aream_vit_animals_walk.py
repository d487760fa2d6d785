# The masks of aream_vit_animals.py, refined by the random walk of affinity_net_animals.py.
#
#   python tools/test.py configs/aream_vit_animals_walk.py work_dirs/aream_vit_animals/epoch_4.pth --pseudo-masks
#
# Expect: not measured with these masks. Masks of aream_dual_animals.py went from 68.7 mIoU to 70.5 on 437 `train`
# photographs, where PAR had 69.6. The masks lie in work_dirs/aream_vit_animals/walked_masks.
_base_ = ['aream_vit_animals.py', '_base_/models/affinity_net_lite0.py']
# After so short a training the paper's 256 steps leak over borders: docs/refining.md.
walk = dict(_base_.random_walk, checkpoint='work_dirs/affinity_net_animals/iter_500.pth', steps=16)
walked = dict(out_dir='work_dirs/aream_vit_animals/walked_masks', test_cfg=dict(refine_scale=1, refine=walk))
custom_hooks = [dict(_base_.pseudo_masks, **walked)]
# Nothing is trained here, and what trains the network has other hooks.
train_dataloader = train_cfg = optim_wrapper = param_scheduler = None
