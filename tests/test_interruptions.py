"""A training that is interrupted anywhere, and resumed, ends as one that was left alone."""

import gc
import multiprocessing
import os
import signal
import sys
from copy import deepcopy

import interruptions
import pytest
import timm
import torch
from draw_demo import draw_demo
from mmengine.runner import IterBasedTrainLoop, Runner
from test_engine import LOAD, PACK, run_config
from test_stage_2_masks import stage_2_config
from toy_voc import ANIMALS, make_voc, voc_config

DIED = 9


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_voc(tmp_path_factory.mktemp('voc') / 'voc', train=6)


def random_config(root, work_dir, by_epoch=True, workers=0, seed=0):
    """A run of random crops, flips and drop path, with checkpoints in the middle of the data."""
    cfg = run_config(root, work_dir)
    augment = [
        dict(type='mmpretrain.RandomResizedCrop', scale=64),
        dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    ]
    cfg.train_dataloader.dataset.pipeline = [LOAD, *augment, PACK]
    cfg.train_dataloader.num_workers = workers
    cfg.model.backbone.drop_path_rate = 0.5
    cfg.custom_hooks = cfg.custom_hooks[:1]
    cfg.default_hooks = dict(
        checkpoint=dict(type='aream_mm.SafeCheckpointHook', interval=1 if by_epoch else 4, by_epoch=by_epoch),
        random_state=dict(type='aream_mm.RandomStateHook'),
    )
    if not by_epoch:
        cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=8)
    cfg.randomness.seed = seed
    return cfg


def trained(cfg, stop_after=None):
    """The final weights of the run, which is abandoned after `stop_after` steps."""
    runner = Runner.from_cfg(cfg)
    if stop_after is not None:
        loss = runner.model.loss

        def counted(*args):
            if runner.iter == stop_after:
                raise KeyboardInterrupt
            return loss(*args)

        runner.model.loss = counted
        with pytest.raises(KeyboardInterrupt):
            runner.train()
    else:
        runner.train()
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        runner.train_loop.dataloader_iterator = None  # ends its workers here; the garbage collector would wait for them
    return runner.model.state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(('by_epoch', 'stop_after'), [(True, 4), (False, 6)])
@pytest.mark.parametrize('resumed_seed', [0, 1, None])
def test_a_resumed_run_ends_with_the_same_weights_with_any_number_of_workers_and_any_seed_in_the_config(
    root, tmp_path, by_epoch, stop_after, resumed_seed
):
    """The seed is that of the first start, which the checkpoint knows."""
    whole = trained(random_config(root, tmp_path / 'whole', by_epoch))
    trained(random_config(root, tmp_path / 'cut', by_epoch), stop_after)
    cfg = random_config(root, tmp_path / 'cut', by_epoch, workers=2, seed=resumed_seed)
    cfg.resume = True
    assert same(trained(cfg), whole)


@pytest.mark.parametrize('name', ['vit_small_patch16_dinov3', 'vit_small_patch16_rope_mixed_ape_224'])
def test_a_run_of_a_network_with_rotary_positions_resumes(root, tmp_path, name):
    if not timm.is_model(name):
        pytest.skip(f'this timm has no {name}')
    whole, cut, resumed = [random_config(root, tmp_path / folder) for folder in ('whole', 'cut', 'cut')]
    for cfg in (whole, cut, resumed):
        cfg.model.backbone.name = name
    resumed.resume = True
    trained(cut, 4)
    assert same(trained(resumed), trained(whole))


def test_the_hook_gives_each_step_other_random_numbers_and_each_seed_others(root, tmp_path):
    """Otherwise nothing would be easier than to repeat them."""
    images = []
    for seed in (0, 1):
        runner = Runner.from_cfg(random_config(root, tmp_path, seed=seed))
        step = runner.model.train_step
        drawn = []
        runner.model.train_step = lambda batch, drawn=drawn, step=step, **options: (
            drawn.append((torch.rand(()).item(), *(float(image.float().mean()) for image in batch['inputs'])))
            or step(batch, **options)
        )
        runner.train()
        images += drawn
    numbers = [number for step in images for number in step]
    assert len(images) == 12 and len(set(numbers)) == len(numbers)


def plain_config(root, work_dir):
    """Stage 2 on a data set of mmseg's own, whose images nothing augments, with drop-out and checkpoints halfway."""
    cfg = stage_2_config(root.parent, work_dir, custom_hooks=[], val_dataloader=None, val_cfg=None, val_evaluator=None)
    pipeline = [LOAD, dict(type='LoadAnnotations'), dict(type='Resize', scale=(64, 64)), dict(type='PackSegInputs')]
    cfg.train_dataloader.dataset = voc_config(root, metainfo=dict(classes=ANIMALS), pipeline=pipeline)
    cfg.model.decode_head.dropout_ratio = 0.5
    cfg.default_hooks.checkpoint.interval = 2
    return cfg


def test_a_resumed_run_on_a_plain_data_set_goes_on_and_says_what_it_cannot_seed(root, tmp_path, monkeypatch):
    """The steps and the order are seeded; where nothing is augmented at random, that is all."""
    whole = trained(plain_config(root, tmp_path / 'whole'))
    trained(plain_config(root, tmp_path / 'cut'), stop_after=3)
    cfg, told = plain_config(root, tmp_path / 'cut'), []
    cfg.resume = True
    runner = Runner.from_cfg(cfg)
    monkeypatch.setattr(runner.logger, 'warning', told.append)
    runner.train()
    assert same(runner.model.state_dict(), whole)
    (warning,) = [text for text in told if 'RandomStateHook' in text]
    assert 'PascalVOCDataset is not wrapped by a data set of aream_mm' in warning


def validated_config(root, work_dir):
    """Two epochs, each with a validation that may give the best checkpoint; of the others the last one is kept."""
    cfg = random_config(root, work_dir)
    masks = dict(type='LoadAnnotations')
    cfg.val_dataloader = deepcopy(cfg.train_dataloader)
    cfg.val_dataloader.merge(dict(batch_size=1, sampler=dict(shuffle=False)))
    cfg.val_dataloader.dataset.merge(dict(pipeline=[LOAD, masks, PACK], test_mode=True))
    cfg.val_evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
    cfg.val_cfg = dict()
    cfg.train_cfg.val_interval = 1
    cfg.default_hooks.checkpoint.merge(dict(max_keep_ckpts=1, save_best='mIoU'))
    cfg.resume = True
    return cfg


def train_and_die(cfg, place):
    """Train, but end the process before the `place`-th time that it renames or removes a file."""
    passed = 0

    def die(event, arguments):
        nonlocal passed
        passed += event in ('os.rename', 'os.remove')  # replacing and unlinking too
        if passed == place:
            os._exit(DIED)

    gc.freeze()  # what all tests before have left, which mmengine searches for garbage
    sys.addaudithook(die)
    Runner.from_cfg(cfg).train()


def exit_code(cfg, place=None):
    process = multiprocessing.get_context('fork').Process(target=train_and_die, args=(cfg, place))
    process.start()
    process.join()
    return process.exitcode


def test_a_run_that_dies_before_any_rename_or_removal_of_a_file_ends_as_one_left_alone(root, tmp_path):
    assert exit_code(validated_config(root, tmp_path / 'alone')) == 0
    place, codes = 0, [DIED]
    while codes[-1] == DIED:
        place += 1
        work_dir = tmp_path / str(place)
        codes.append(exit_code(validated_config(root, work_dir), place))
        assert interruptions.broken_checkpoints(work_dir) == []
        assert exit_code(validated_config(root, work_dir)) == 0
        assert interruptions.differences(work_dir, tmp_path / 'alone') == [], place
    assert codes[-1] == 0 and place > 8


def test_what_runs_that_were_killed_left_over_is_removed_at_start(root, tmp_path):
    leftovers = [tmp_path / name for name in ('epoch_9.pth.tmp', 'pseudo_masks/7.png.tmp', '20260101_000000/a.csv.tmp')]
    for path in leftovers:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'half')
    (tmp_path / 'pseudo_masks/7.png').write_bytes(b'whole')
    trained(random_config(root, tmp_path))
    assert not any(path.exists() for path in leftovers) and (tmp_path / 'pseudo_masks/7.png').exists()


def test_both_stages_survive_kills_while_they_train_and_write(tmp_path):
    """The short version of tests/proofs/interruptions.py."""
    draw_demo(tmp_path / 'images', num_train=8, num_val=2, size=64)
    list(interruptions.train(tmp_path / 'alone', tmp_path / 'images', []))
    names = ('stage 1: writing masks', 'stage 2: training')
    phases = [
        phase._replace(delay=0) for phase in interruptions.PHASES if phase.name in names
    ]  # later it might be over
    signals = (signal.SIGKILL, signal.SIGTERM)
    hits = list(interruptions.train(tmp_path / 'run', tmp_path / 'images', list(zip(phases, signals, strict=True))))
    assert len(hits) == 2 and [problem for hit in hits for problem in hit['problems']] == []
    assert interruptions.compare(tmp_path / 'run', tmp_path / 'alone') == []
