# Stage 2 on the drawn demo set in rounds: deeplabv3plus_demo.py, by steps, whose predictions on the training pictures
# are the masks of the next round. A round takes 6 minutes on one CPU core.
#
#   python tools/train.py configs/demo/deeplabv3plus_demo_cyclic.py
#
# Expect: rounds that lose, and what that looks like: 60.3 mIoU on `val` after round 1, then 58.5, 49.7 and 38.6; the
# rounds end after the third, whose agreement with its masks has fallen. docs/chain.md says more.
_base_ = 'deeplabv3plus_demo.py'
max_iters = 240
param_scheduler = dict(_delete_=True, type='PolyLR', eta_min=1e-5, power=0.9, end=max_iters, by_epoch=False)
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
train_cfg = dict(
    _delete_=True,
    type='aream_mm.CyclicTrainLoop',
    rounds=4,
    max_iters=max_iters,
    val_interval=max_iters,
    masks=dict(
        dataloader=dict(
            batch_size=16,
            num_workers=2,
            sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
            dataset=dict(
                type='aream_mm.ImageTagDataset',
                dataset=_base_.pictures,
                pipeline=[_base_.test_pipeline[0], dict(type='aream_mm.PackTagInputs')],
                test_mode=True,
            ),
        ),
    ),
)
default_hooks = dict(logger=dict(log_metric_by_epoch=False), checkpoint=dict(by_epoch=False, interval=max_iters))
log_processor = dict(by_epoch=False)
