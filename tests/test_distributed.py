"""What several processes train, measure and write equals what one process does."""

import gc
import json
import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.dataset import DefaultSampler
from mmengine.model import convert_sync_batchnorm
from mmengine.runner import Runner
from test_cam_metric import make_metric, make_prediction
from test_engine import hook_of, run_config
from test_measuring_hooks import measured_config
from toy_voc import make_voc

from aream_mm.engine import AffinityProfileHook, LayerEntropyHook
from aream_mm.models.aream import pair_counts, pair_labels
from aream_mm.registry import MODELS

IMAGES = 5
BATCH = 8
# A CNN without batch statistics, which two processes share only on GPUs.
CONVNEXT = dict(type='aream_mm.TimmCNN', name='test_convnext', out_indices=(2, 3))


def run_in_processes(world_size, function, folder):
    """Call function(folder) in each of `world_size` processes of a gloo group, which begin as forks of this one."""
    mp.start_processes(in_process, (world_size, function, folder), nprocs=world_size, start_method='fork')


def in_process(rank, world_size, function, folder):
    gc.freeze()  # what all tests before have left, which mmengine searches for garbage
    os.environ['LOCAL_RANK'] = str(rank)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world_size)
    function(folder)  # the fork ends without leaving the group, for which gloo of torch 2.1 may wait without end


def rank():
    return dist.get_rank() if dist.is_initialized() else 0


def sharded_metric(folder):
    torch.manual_seed(0)
    predictions = [make_prediction(number) for number in range(IMAGES)]
    metric, measured = make_metric(), []
    for images, round_up in ((IMAGES, True), (IMAGES, False), (2, True), (2, False)):
        for index in DefaultSampler(predictions[:images], shuffle=False, round_up=round_up):
            metric.process({}, [predictions[index]])
        measured.append(metric.evaluate(images))
    torch.save(measured, folder / f'metrics_{rank()}')


@pytest.mark.parametrize('world_size', [2, 3])
def test_counts_add_up_over_processes(tmp_path, world_size):
    """Of 5 or 2 images a sampler that rounds up repeats 1, one that does not leaves a process with fewer or none."""
    sharded_metric(tmp_path)
    alone = torch.load(tmp_path / 'metrics_0')
    run_in_processes(world_size, sharded_metric, tmp_path)
    assert alone[0] == alone[1] and alone[2] == alone[3] != alone[0]
    for number in range(world_size):
        assert torch.load(tmp_path / f'metrics_{number}') == alone


def unevenly_sharded_metric(folder):
    """As a SizeBatchSampler shares images out: the first process has all of one size, the last one the rest."""
    torch.manual_seed(0)
    predictions, metric = [make_prediction(number) for number in range(IMAGES)], make_metric()
    first = range(4) if dist.is_initialized() else range(IMAGES)
    for index in first if rank() == 0 else range(4, IMAGES):
        metric.process({}, [predictions[index]])
    torch.save(metric.evaluate(IMAGES), folder / f'metrics_{rank()}')


def test_counts_of_uneven_shares_add_up(tmp_path):
    unevenly_sharded_metric(tmp_path)
    alone = torch.load(tmp_path / 'metrics_0')
    run_in_processes(2, unevenly_sharded_metric, tmp_path)
    assert torch.load(tmp_path / 'metrics_0') == torch.load(tmp_path / 'metrics_1') == alone


def sharded_hooks(folder):
    runner = Runner.from_cfg(measured_config(folder / 'voc', folder / f'work_{dist.is_initialized()}'))
    runner.call_hook('before_train')
    hooks = {type(hook): hook for hook in runner.hooks}
    hooks[LayerEntropyHook].measure(runner)
    recorded = {}
    runner.visualizer.add_scalars = lambda values, step: recorded.update(values)
    hooks[AffinityProfileHook].after_val_epoch(runner)
    del runner.visualizer.add_scalars
    metrics = runner.val_loop.run()
    torch.save([runner.model.attention_loss.layer_weights, recorded, metrics], folder / f'measured_{rank()}')
    write_masks(folder)


def test_entropies_profile_and_metrics_are_those_of_one_process(tmp_path):
    """5 images for the entropies, 2 of them for the profile, by 3 processes: one has no image of the profile."""
    make_voc(tmp_path / 'voc', train=IMAGES)
    sharded_hooks(tmp_path)
    weights, profile, metrics = torch.load(tmp_path / 'measured_0')
    run_in_processes(3, sharded_hooks, tmp_path)
    for number in range(3):
        sharded_weights, sharded_profile, sharded_metrics = torch.load(tmp_path / f'measured_{number}')
        torch.testing.assert_close(sharded_weights, weights)
        assert sharded_profile == pytest.approx(profile)
        assert sharded_metrics == metrics
    assert np.isfinite(list(profile.values())).all()
    assert 0 < metrics['cam/mIoU_best'] <= 100 and 'multi-label/mAP' in metrics
    assert_masks_of_one_process(tmp_path, 3)


def write_masks(folder):
    """Write the masks of random weights, then once more the first three of them alone; note who wrote what.

    Another process than the first has other buffers, as after training with a BatchNorm.
    """
    processes = dist.get_world_size() if dist.is_initialized() else 1
    runner = Runner.from_cfg(run_config(folder / 'voc', folder / f'masks_{processes}'))
    runner.call_hook('before_train')
    hook, written = hook_of(runner), []
    runner.model.backbone.normalize.mean += 0.1 * rank()
    predict = runner.model.predict
    runner.model.predict = lambda **batch: [written.append(one.sample_id) or one for one in predict(**batch)]
    hook.write(runner, 'some.pth')
    if rank() == 0:
        for i in range(3):
            (hook.out_dir / f'2007_{i:06d}.png').unlink()
    hook.write(runner, 'some.pth')
    torch.save(written, folder / f'written_{processes}_{rank()}')


def assert_masks_of_one_process(folder, processes):
    contents = [
        {path.name: path.read_bytes() for path in (folder / f'masks_{number}' / 'pseudo_masks').iterdir()}
        for number in (1, processes)
    ]
    for of_one in contents:  # the command names the work dir
        of_one['manifest.json'] = json.loads(of_one['manifest.json']) | dict(command=None)
    alone = torch.load(folder / 'written_1_0')
    assert contents[0] == contents[1] and len(contents[0]) == len(set(alone)) + 1
    assert contents[1]['manifest.json']['images'] == len(set(alone)) == len(alone) - 3
    shares = [torch.load(folder / f'written_{processes}_{number}') for number in range(processes)]
    assert all(shares) and sorted(sum(shares, [])) == sorted(alone)


def train(folder, name, **changes):
    """Train 3 epochs of 2 steps on batches of `BATCH` images in float64; keep logged losses, weights, pair counts."""
    processes = dist.get_world_size() if dist.is_initialized() else 1
    cfg = run_config(folder / 'voc', folder / f'{name}_{processes}')
    cfg.custom_hooks = cfg.custom_hooks[:1]
    cfg.experiment_name = f'{name}_{processes}'
    cfg.train_dataloader.batch_size = BATCH // processes
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
    cfg.merge_from_dict({'train_cfg.max_epochs': 3, 'model.attention_loss.loss_weight': 1.0, **changes})
    if processes > 1:
        cfg.launcher, cfg.model_wrapper_cfg = 'pytorch', dict(device_ids=None)
    runner = Runner.from_cfg(cfg)
    model, counts = runner.model.module if processes > 1 else runner.model, []
    model.attention_loss.register_forward_pre_hook(
        lambda _, arguments: counts.append(pair_counts(pair_labels(arguments[1], arguments[0].features.shape[-2:])))
    )
    runner.train()
    losses = {key: buffer.data[0] for key, buffer in runner.message_hub.log_scalars.items() if 'loss' in key}
    torch.save([losses, model.state_dict(), torch.stack(counts)], folder / f'{name}_{processes}_{rank()}')


def train_and_write(folder):
    torch.set_default_dtype(torch.float64)
    try:
        train(folder, 'plain')
        train(folder, 'accumulated', **{'optim_wrapper.accumulative_counts': 2})
        vit = run_config(folder, folder).model.backbone.to_dict() | dict(num_class_tokens=1)
        dual = {'model.backbone': dict(_delete_=True, type='aream_mm.DualBranch', cnn=CONVNEXT, vit=vit)}
        train(folder, 'dual', **dual, **{'model.head.in_channels': 112, 'model.head.token_channels': 24})
        if dist.is_initialized():
            # Saving the optimizer gathers it from all processes, which mmengine does on one alone, and waits for ever.
            sharded = {'default_hooks.checkpoint.save_optimizer': False}
            sharded['optim_wrapper.optimizer.type'] = 'ZeroRedundancyOptimizer'
            train(folder, 'sharded_optimizer', **sharded, **{'optim_wrapper.optimizer.optimizer_type': 'SGD'})
    finally:
        torch.set_default_dtype(torch.float32)
    write_masks(folder)


def test_two_processes_train_the_losses_and_weights_of_one_with_the_whole_batch(tmp_path):
    """Also with accumulated gradients, a CNN beside the ViT, a sharded optimizer. The pairs lie unevenly."""
    make_voc(tmp_path / 'voc', train=2 * BATCH)
    train_and_write(tmp_path)
    run_in_processes(2, train_and_write, tmp_path)
    for name in ('plain', 'accumulated', 'dual', 'sharded_optimizer'):
        alone = 'plain' if name == 'sharded_optimizer' else name
        losses, weights, counts = torch.load(tmp_path / f'{alone}_1_0', weights_only=False)
        shares = [torch.load(tmp_path / f'{name}_2_{number}', weights_only=False) for number in range(2)]
        for sharded_losses, sharded_weights, _ in shares:
            assert len(losses['train/loss']) == 6 and len(losses['train/loss_aream']) == 4
            for key, values in losses.items():
                np.testing.assert_allclose(sharded_losses[key], values, rtol=0, atol=1e-6)
            torch.testing.assert_close(sharded_weights, weights, rtol=0, atol=1e-6)
        first, second = shares[0][2], shares[1][2]
        assert torch.equal(first + second, counts) and (first != second).any()
    assert_masks_of_one_process(tmp_path, 2)


def test_sync_bn_keeps_the_activations_of_a_timm_cnn():
    """As they are converted by mmengine's sync_bn='torch'; in evaluation mode, because they train on GPUs alone."""
    cnn = MODELS.build(dict(type='aream_mm.TimmCNN', name='tf_efficientnet_lite0', out_indices=(3, 4))).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = cnn(images)
        converted = convert_sync_batchnorm(cnn).eval()
        kinds = [type(module) for module in converted.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        assert not kinds
        for level, other in zip(converted(images), expected, strict=True):
            torch.testing.assert_close(level, other, rtol=0, atol=0)
