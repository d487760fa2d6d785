# Stage 2 on the animals of VOC 2012 in rounds: deeplabv3plus_lite0_animals.py, whose predictions on the training
# pictures, refined by a dense CRF (pip install -e '.[crf]'), are the masks of the next round, three times or until they
# settle.
#
#   python tools/train.py configs/seg/deeplabv3plus_lite0_animals_cyclic.py --cfg-options data_root=… \
#       model.backbone.pretrained=…
#
# Expect: masks of the training pictures that are better than those it begins with, and nothing gained on `val` by round
# 2: in docs/chain.md masks of 70.5 mIoU, then of 76.6 and 74.4, and networks of 63.2 and 61.2, where two seeds of round
# 1 differ by 3. Each takes as long as deeplabv3plus_lite0_animals.py does, and some minutes for the masks. rounds.json
# in the work dir has the figures, round_1.pth, round_2.pth, … the networks.
_base_ = 'deeplabv3plus_lite0_animals.py'
train_cfg = dict(
    type='aream_mm.CyclicTrainLoop',
    rounds=3,
    masks=dict(
        dataloader=dict(
            batch_size=4,
            num_workers=2,
            sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
            dataset=dict(
                type='aream_mm.ImageTagDataset',
                dataset=dict(_base_.dataset_train_aug, metainfo=_base_.metainfo),
                tag_file=_base_.data_root + '/cls_labels.npy',
                drop_untagged=True,
                pipeline=[*_base_.test_pipeline[:2], dict(type='aream_mm.PackTagInputs')],
                test_mode=True,
            ),
        ),
        test_cfg=dict(refine=dict(type='aream_mm.DenseCRF'), refine_scale=0.5),
    ),
)
