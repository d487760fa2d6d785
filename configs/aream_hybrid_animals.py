# As aream_vit_animals.py, with the features of a frozen EfficientNet-Lite0 added to the patch embedding: one stream for
# what is where and for what belongs together.
#
#   python tools/train.py configs/aream_hybrid_animals.py --cfg-options data_root=… \
#       model.backbone.pretrained=… model.backbone.stem.pretrained=…
#
# `pretrained` takes a file in timm's key names; without the options timm's own weights are fetched.
#
# Expect: CAMs have 47.4 mIoU (best threshold, `train`) after the short training in docs/results.md. The whole training
# was not measured.
# Pseudo masks are written to work_dirs/aream_hybrid_animals/pseudo_masks.
_base_ = 'aream_vit_animals.py'
model = dict(
    backbone=dict(
        stem=dict(
            type='aream_mm.TimmCNN', name='tf_efficientnet_lite0', out_indices=(3, 4), pretrained=True, frozen=True
        )
    )
)
# The longest key that fits a weight's name counts: the projection learns as fast as the head.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone.stem': dict(lr_mult=1)}))
