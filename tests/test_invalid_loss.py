"""A loss or weights that are no numbers stop the training, by name of the step, the images and what is left."""

import pytest
import torch
from mmengine.runner import Runner
from test_engine import run_config
from toy_voc import make_voc

from aream_mm.engine import InvalidLossHook


@pytest.fixture
def start(tmp_path):
    """start(): the runner of a run of two epochs of two steps, and the files of each step, filled as it trains."""

    def start():
        cfg = run_config(make_voc(tmp_path / 'voc'), tmp_path / 'run')
        cfg.custom_hooks = cfg.custom_hooks[:1]
        cfg.default_hooks = dict(
            checkpoint=dict(type='aream_mm.SafeCheckpointHook', interval=1),
            invalid_loss=dict(type='aream_mm.InvalidLossHook'),
        )
        runner, steps = Runner.from_cfg(cfg), []
        loss = runner.model.loss

        def recorded(inputs, samples):
            steps.append([sample.img_path for sample in samples])
            return loss(inputs, samples)

        runner.model.loss = recorded
        return runner, steps

    return start


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_the_step_whose_loss_is_no_number_is_named_with_its_files_and_the_last_checkpoint(start, tmp_path, value):
    runner, steps = start()
    recorded = runner.model.loss

    def spoilt(*args):
        losses = recorded(*args)
        return {**losses, 'loss_patch': losses['loss_patch'] * value} if len(steps) == 4 else losses

    runner.model.loss = spoilt
    with pytest.raises(FloatingPointError, match='Iteration 4: expected a finite loss') as caught:
        runner.train()
    message = str(caught.value)
    assert f"'loss_patch': {value}" in message
    assert f'Its files: {", ".join(steps[3])}. Those of the step before: {", ".join(steps[2])}.' in message
    assert message.endswith(f'The last good checkpoint: {tmp_path}/run/epoch_1.pth')
    assert [path.name for path in (tmp_path / 'run').glob('*.pth')] == ['epoch_1.pth']


def test_weights_that_a_gradient_has_spoilt_under_a_finite_loss_are_not_saved(start, tmp_path):
    runner, steps = start()
    weight = next(runner.model.head.parameters())
    weight.register_hook(lambda gradient: gradient * float('nan') if len(steps) == 2 else gradient)
    with pytest.raises(
        FloatingPointError, match=r'Iteration 2: expected finite weights, got others in head\.'
    ) as caught:
        runner.train()
    assert ', '.join(steps[1]) in str(caught.value) and str(caught.value).endswith('none yet')
    assert not list((tmp_path / 'run').glob('*.pth*'))


def test_a_run_of_finite_losses_is_left_alone(start):
    runner, steps = start()
    runner.train()
    assert len(steps) == 4 and runner.epoch == 2


def test_the_loss_on_the_device_is_not_read_again(start):
    """Reading it would wait for the GPU at each step; the hook takes what mmengine has read for the log."""
    runner, _ = start()
    hook = InvalidLossHook()
    hook.before_train(runner)
    runner.message_hub.update_scalar('train/loss', 1.0)
    hook.after_train_iter(runner, 0, dict(data_samples=[]), dict(loss=torch.empty((), device='meta')))
