# Stage 2 on your own photographs: DeepLabV3+ on EfficientNet-Lite0, trained on the pseudo masks of
# own_photographs.py. Small enough for two CPU cores.
#
#   python tools/train.py configs/seg/own_photographs.py
#
# Expect: it has not been measured on photographs of yours. The choices are those of deeplabv3plus_lite0_animals.py,
# which has 66.3 mIoU on VOC's photographs.
#
# Folder and classes are set in ../_base_/datasets/own.py; nothing has to be edited here.
_base_ = ['../_base_/models/deeplabv3plus_lite0.py', '../_base_/datasets/own_pseudo.py', '../_base_/seg_runtime.py']
work_dir = 'work_dirs/own_photographs_seg'  # stage 1 has the one of this name
model = dict(data_preprocessor=dict(size=_base_.small_crop_size), decode_head=dict(num_classes=len(_base_.classes)))
max_iters = 1000  # of 8 crops: 8 times each of 1,000 photographs

# There is no validation, which needs true masks. Where data/own/masks has some, tools/test.py measures with them, and
# these lines in place of the next two do so at the end of training too:
#   train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
#   val_dataloader = dict(_base_.test_dataloader, _delete_=True)
#   val_evaluator = dict(_base_.test_evaluator, _delete_=True)
train_cfg = dict(max_iters=max_iters)
val_cfg = None
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=250))
