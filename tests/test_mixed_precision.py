"""Training in bfloat16 without a GPU."""

import torch
from mmengine.runner import Runner
from test_engine import run_config
from test_run import run
from torch.testing import assert_close
from toy_voc import make_voc

from aream_mm.engine import BFloat16OptimWrapper


def test_products_are_in_bfloat16_and_weights_and_gradients_in_float32():
    torch.manual_seed(0)
    layer, images = torch.nn.Linear(64, 64), torch.rand(8, 64)
    wrapper = BFloat16OptimWrapper(torch.optim.SGD(layer.parameters(), lr=0.1))
    before = layer.weight.detach().clone()
    with wrapper.optim_context(layer):
        output = layer(images)
    assert output.dtype == torch.bfloat16
    wrapper.update_params(output.float().square().mean())
    expected = torch.autograd.functional.jacobian(
        lambda weight: (images @ weight.T + layer.bias.detach()).square().mean(), before
    )
    step = (before - layer.weight.detach()) / 0.1
    assert step.dtype == torch.float32
    assert_close(step, expected, rtol=0.05, atol=2e-3)
    assert layer(images).dtype == torch.float32


def losses_of(cfg):
    """The losses of each step of a run."""
    runner, losses = Runner.from_cfg(cfg), []
    loss = runner.model.loss
    runner.model.loss = lambda *args: losses.append(loss(*args)) or losses[-1]
    runner.train()
    return losses


def test_a_run_has_nearly_the_losses_of_one_in_float32(tmp_path):
    root = make_voc(tmp_path / 'voc')
    runs = []
    for wrapper in ('OptimWrapper', 'aream_mm.BFloat16OptimWrapper'):
        cfg = run_config(root, tmp_path / wrapper, **{'optim_wrapper.type': wrapper, 'experiment_name': wrapper})
        runs.append(losses_of(cfg))
    assert [set(losses) for losses in runs[0]] == [set(losses) for losses in runs[1]]
    assert 'loss_aream' in runs[1][-1]
    for expected, losses in zip(*runs, strict=True):
        for name, value in losses.items():
            assert_close(value.float(), expected[name], rtol=0.05, atol=0.01, msg=name)
    assert any(not torch.equal(a[name], b[name]) for a, b in zip(*runs, strict=True) for name in a)


def test_the_training_command_takes_amp_without_a_gpu(tmp_path):
    cfg = run_config(make_voc(tmp_path / 'voc'), tmp_path / 'work', **{'train_cfg.max_epochs': 1, 'log_level': 'INFO'})
    cfg.dump(tmp_path / 'config.py')
    run('tools/train.py', tmp_path / 'config.py', '--amp')
    (log,) = (tmp_path / 'work').glob('*/*.log')
    assert "type='aream_mm.BFloat16OptimWrapper'" in log.read_text()
    assert (tmp_path / 'work/epoch_1.pth').is_file()
