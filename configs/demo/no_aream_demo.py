# aream_demo.py without AReAM: from the end of its warm-up on, classification is all that is trained. Its attention has
# learnt nothing that could propagate a CAM, so none is.
#
#   python tools/train.py configs/demo/no_aream_demo.py --resume
#
# Expect: see the table that `make demo` ends with. No pseudo masks are written.
_base_ = 'aream_demo.py'
load_from = 'work_dirs/aream_demo/iter_80.pth'
model = dict(attention_loss=None, test_cfg=dict(propagate_layers=()))
custom_hooks = []
