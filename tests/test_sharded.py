"""FSDP on two processes without a GPU: stage 1 trains as under DDP, and leaves a checkpoint that any process reads."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import FlexibleRunner, Runner, load_checkpoint
from packaging.version import Version
from test_distributed import rank, run_in_processes
from test_engine import run_config
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.testing import assert_close
from toy_voc import make_voc
from train import require_training_alone

from aream_mm.models import vit
from aream_mm.registry import MODELS

pytestmark = pytest.mark.skipif(Version(torch.__version__) < Version('2.6'), reason='this torch shards on GPUs alone')
FSDP = Config.fromfile(Path(__file__).parents[1] / 'configs/_base_/fsdp.py').strategy
FSDP.model_wrapper.device_id = 'cpu'


def config(folder, name, **backbone):
    cfg = run_config(folder / 'voc', folder / name)
    cfg.custom_hooks = [
        cfg.custom_hooks[0],
        dict(type='aream_mm.InvalidLossHook'),
    ]  # the masks are made from the checkpoint
    cfg.model.backbone.update(backbone)
    return cfg


def train(folder, with_cp):
    """Two epochs under DDP and under FSDP, each with its own checkpoint."""
    backbone = dict(with_cp=with_cp)
    wrapper = dict(model_wrapper_cfg=dict(device_ids=None, broadcast_buffers=False), launcher='pytorch')
    Runner.from_cfg(Config({**config(folder, 'ddp', **backbone), **wrapper})).train()
    runner = FlexibleRunner.from_cfg(Config({**config(folder, 'fsdp', **backbone), 'strategy': FSDP, 'env_cfg': {}}))
    runner.train()
    layers = [module for module in runner.model.modules() if isinstance(module, vit.LAYERS)]
    units = [module for module in runner.model.modules() if isinstance(module, FullyShardedDataParallel)]
    assert len(units) == 1 + len(layers) and {unit.module for unit in units[1:]} == set(layers)
    held = sum(weight.numel() for weight in runner.model.parameters())
    torch.save(held, folder / f'held_{rank()}')


@pytest.mark.parametrize('with_cp', [False, True])
def test_a_sharded_run_is_that_of_ddp(tmp_path, with_cp):
    make_voc(tmp_path / 'voc')
    run_in_processes(2, lambda folder: train(folder, with_cp), tmp_path)
    alone, sharded = (torch.load(tmp_path / name / 'epoch_2.pth', weights_only=False) for name in ('ddp', 'fsdp'))
    assert sharded['state_dict'].keys() == alone['state_dict'].keys()
    assert_close(sharded['state_dict'], alone['state_dict'], rtol=1e-4, atol=1e-5)
    init_default_scope('mmseg')
    model = MODELS.build(config(tmp_path, 'fsdp').model)
    load_checkpoint(model, str(tmp_path / 'fsdp/epoch_2.pth'), strict=True)
    whole = sum(weight.numel() for weight in model.parameters())
    assert sum(torch.load(tmp_path / f'held_{number}') for number in range(2)) < 1.1 * whole


@pytest.mark.parametrize('left', ['val_dataloader', 'PseudoMaskHook', 'resume'])
def test_what_runs_the_network_besides_training_is_refused(left):
    cfg = Config(dict(custom_hooks=[dict(type='aream_mm.WarmUpHook', end=1)], val_dataloader=None, resume=False))
    require_training_alone(cfg)
    if left == 'val_dataloader':
        cfg.val_dataloader = dict(batch_size=1)
    elif left == 'resume':
        cfg.resume = True
    else:
        cfg.custom_hooks.append(dict(type=f'aream_mm.{left}'))
    with pytest.raises(ValueError, match=f'strategy: expected .*{left}'):
        require_training_alone(cfg)
