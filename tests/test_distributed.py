"""What is measured by several processes equals what one process measures."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner
from test_cam_metric import make_metric, make_prediction
from test_measuring_hooks import measured_config
from toy_voc import make_voc

from aream_mm.engine import AffinityProfileHook, LayerEntropyHook

PICTURES = 5


def run_in_processes(world_size, function, folder):
    """Call function(folder) in each of `world_size` processes of a gloo group."""
    mp.spawn(in_process, (world_size, function, folder), nprocs=world_size)


def in_process(rank, world_size, function, folder):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world_size)
    function(folder)
    dist.destroy_process_group()


def rank():
    return dist.get_rank() if dist.is_initialized() else 0


def sharded_metric(folder):
    torch.manual_seed(0)
    predictions = [make_prediction(number) for number in range(PICTURES)]
    metric, measured = make_metric(), []
    for pictures, round_up in ((PICTURES, True), (PICTURES, False), (2, True), (2, False)):
        for index in DefaultSampler(predictions[:pictures], shuffle=False, round_up=round_up):
            metric.process({}, [predictions[index]])
        measured.append(metric.evaluate(pictures))
    torch.save(measured, folder / f'metrics_{rank()}')


@pytest.mark.parametrize('world_size', [2, 3])
def test_counts_add_up_over_processes(tmp_path, world_size):
    """Of 5 or 2 pictures a sampler that rounds up repeats 1, one that does not leaves a process with fewer or none."""
    sharded_metric(tmp_path)
    alone = torch.load(tmp_path / 'metrics_0')
    run_in_processes(world_size, sharded_metric, tmp_path)
    assert alone[0] == alone[1] and alone[2] == alone[3] != alone[0]
    for number in range(world_size):
        assert torch.load(tmp_path / f'metrics_{number}') == alone


def sharded_hooks(folder):
    runner = Runner.from_cfg(measured_config(folder / 'voc', folder / f'work_{dist.is_initialized()}'))
    runner.call_hook('before_train')
    hooks = {type(hook): hook for hook in runner.hooks}
    hooks[LayerEntropyHook].measure(runner)
    recorded = {}
    runner.visualizer.add_scalars = lambda values, step: recorded.update(values)
    hooks[AffinityProfileHook].after_val_epoch(runner)
    torch.save([runner.model.aream.layer_weights, recorded], folder / f'measured_{rank()}')


def test_entropies_and_profile_are_those_of_one_process(tmp_path):
    """5 pictures for the entropies, 2 of them for the profile, by 3 processes: one has no picture of the profile."""
    make_voc(tmp_path / 'voc', train=PICTURES)
    sharded_hooks(tmp_path)
    weights, profile = torch.load(tmp_path / 'measured_0')
    run_in_processes(3, sharded_hooks, tmp_path)
    for number in range(3):
        sharded_weights, sharded_profile = torch.load(tmp_path / f'measured_{number}')
        torch.testing.assert_close(sharded_weights, weights)
        assert sharded_profile == pytest.approx(profile)
    assert np.isfinite(list(profile.values())).all()
