"""Stage 2 in rounds: whose masks train which round, what is measured, and that an interruption changes nothing."""

import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from test_distributed import CONVNEXT, run_in_processes
from toy_voc import ANIMALS, make_voc, voc_config, write_masks

from aream_mm.config import load_config
from aream_mm.engine.cyclic import agreement
from aream_mm.engine.pseudo_masks import keep_to_tags
from aream_mm.models.refined_tta import Refinement
from aream_mm.registry import DATASETS, MODELS

ROOT = Path(__file__).parents[1]
NAMES = [f'2007_{i:06d}' for i in range(4)]
STEPS = 4  # of a round
DIED = 3
PAR = dict(type='aream_mm.PAR', dilations=[1, 2], num_iters=3)
CRF = dict(type='aream_mm.DenseCRF', num_iters=3, gaussian_compat=1, bilateral_compat=1)
LOAD, RESIZE = dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64))
MASK, PACK = dict(type='LoadAnnotations'), dict(type='PackSegInputs')


def cyclic_config(folder, work_dir, rounds=2, **changes):
    """Rounds of four steps over four pictures, with a checkpoint every other step and a validation after each round."""
    pictures = voc_config(folder / 'voc', metainfo=dict(classes=ANIMALS))
    tags = dict(type='aream_mm.ImageTagDataset', dataset=pictures, tag_file=f'{folder}/voc/cls_labels.npy')
    in_order = dict(type='DefaultSampler', shuffle=False, round_up=False)
    cfg = Config(
        dict(
            default_scope='mmseg',
            work_dir=str(work_dir),
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=dict(type='SegDataPreProcessor', mean=[0] * 3, std=[255] * 3, size=(64, 64)),
                backbone=dict(CONVNEXT, out_indices=(1,)),
                decode_head=dict(
                    type='FCNHead',
                    in_channels=32,
                    in_index=0,
                    channels=8,
                    num_convs=1,
                    num_classes=7,
                    dropout_ratio=0.0,  # which each process draws for itself
                    loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
                ),
                test_cfg=dict(mode='whole'),
            ),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='InfiniteSampler', shuffle=True),
                dataset=dict(
                    type='aream_mm.PseudoMaskDataset',
                    dataset=pictures,
                    mask_dir=str(folder / 'masks'),
                    pipeline=[LOAD, MASK, RESIZE, dict(type='RandomFlip', prob=0.5), PACK],
                ),
            ),
            val_dataloader=dict(
                batch_size=1,
                num_workers=0,
                sampler=in_order,
                dataset=dict(
                    type='aream_mm.MaskDataset',
                    dataset=voc_config(folder / 'voc', 'val', metainfo=dict(classes=ANIMALS)),
                    pipeline=[LOAD, RESIZE, MASK, PACK],
                    test_mode=True,
                ),
            ),
            val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
            val_cfg=dict(type='ValLoop'),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2)),
            param_scheduler=[dict(type='PolyLR', end=STEPS, by_epoch=False)],
            train_cfg=dict(
                type='aream_mm.CyclicTrainLoop',
                rounds=rounds,
                max_iters=STEPS,
                val_interval=STEPS,
                masks=dict(
                    dataloader=dict(
                        batch_size=2,
                        num_workers=0,
                        sampler=in_order,
                        dataset=dict(
                            tags, pipeline=[LOAD, RESIZE, dict(type='aream_mm.PackTagInputs')], test_mode=True
                        ),
                    )
                ),
            ),
            default_hooks=dict(
                checkpoint=dict(type='aream_mm.SafeCheckpointHook', by_epoch=False, interval=2),
                random_state=dict(type='aream_mm.RandomStateHook'),
                invalid_loss=dict(type='aream_mm.InvalidLossHook'),
            ),
            log_processor=dict(by_epoch=False),
            randomness=dict(seed=0),
            log_level='WARNING',
        )
    )
    cfg.merge_from_dict(changes)
    return cfg


def make_data(folder):
    """Pictures, tags and masks of stage 1, the i-th of which is of class i throughout: a network soon gives others."""
    make_voc(folder / 'voc')
    write_masks(folder / 'masks', NAMES, ANIMALS)
    return folder


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('cyclic'))


def watched(runner):
    """For each step of the training: the masks' folder, the learning rate before it and the weights before it."""
    seen, step = [], runner.model.train_step

    def train_step(batch, optim_wrapper):
        weights = torch.cat([parameter.detach().flatten() for parameter in runner.model.parameters()])
        folders = {Path(sample.seg_map_path).parent.name for sample in batch['data_samples']}
        seen.append((folders, optim_wrapper.get_lr()['lr'][0], weights))
        return step(batch, optim_wrapper=optim_wrapper)

    runner.model.train_step = train_step
    return seen


@pytest.fixture(scope='module')
def finished(data):
    """A finished run of two rounds: its work dir and what was seen of its steps."""
    runner = Runner.from_cfg(cyclic_config(data, data / 'alone'))
    seen = watched(runner)
    runner.train()
    return data / 'alone', seen


def figures(work_dir):
    """rounds.json without the folders."""
    return [dict(row, masks=None) for row in json.loads((work_dir / 'rounds.json').read_text())]


def masks_in(folder):
    return {name: np.array(Image.open(folder / f'{name}.png')) for name in NAMES}


def test_each_round_trains_on_the_masks_that_the_one_before_has_written(finished, data):
    work_dir, seen = finished
    assert [folders for folders, _, _ in seen] == [{'masks'}] * STEPS + [{'round_1'}] * STEPS
    first, second = masks_in(work_dir / 'round_1'), masks_in(work_dir / 'round_2')
    before = masks_in(data / 'masks')
    for one, other in ((before, first), (first, second)):
        assert any((one[name] != other[name]).any() for name in NAMES)


def test_each_round_starts_from_the_same_weights_and_learning_rate(finished):
    """And not at those that the round before ended with."""
    _, seen = finished
    assert [rate for _, rate, _ in seen[:STEPS]] == [rate for _, rate, _ in seen[STEPS:]]
    assert torch.equal(seen[0][2], seen[STEPS][2]) and not torch.equal(seen[STEPS - 1][2], seen[STEPS][2])


def test_untagged_classes_never_appear_and_the_masks_fit_the_pictures(finished, data):
    tags = np.load(data / 'voc/cls_labels.npy', allow_pickle=True).item()
    animals = [7, 9, 11, 12, 14, 16]  # of VOC's 20
    for number in (1, 2):
        for name, mask in masks_in(finished[0] / f'round_{number}').items():
            assert mask.shape == (80, 96)
            assert set(np.unique(mask)) <= {0, *(np.flatnonzero(tags[name][animals]) + 1)}


@pytest.mark.parametrize(('first_id', 'expected'), [(1, [0, 2, 3]), (0, [2, 1, 1])])
def test_a_mask_is_the_highest_logit_of_the_tagged_classes_and_background(first_id, expected):
    """Of four planes, the second or the first of which belongs to a class that the picture does not show."""
    planes = [[3.0, 0, 0], [9.0, 9, 9], [1.0, 2, 2], [2.0, 1, 3]]
    planes = planes if first_id else [[9.0, 9, 9], [1.0, 2, 2], [2.0, 1, 1]]
    sample = SegDataSample(seg_logits=PixelData(data=torch.tensor(planes)[:, None]))
    sample.set_field(torch.tensor([0.0, 1, 1]), 'gt_score')
    keep_to_tags([sample], first_id)
    assert sample.pred_sem_seg.data.tolist() == [[expected]]


@pytest.mark.parametrize('scale', [1.0, 0.5])
@pytest.mark.parametrize('refiner', [PAR, CRF], ids=lambda refiner: refiner['type'])
def test_masks_are_refined_with_the_picture_among_the_tagged_classes(tmp_path, refiner, scale):
    """Pictures of a batch have different numbers of tags."""
    samples, expected = [], []
    low = (int(10 * scale), int(14 * scale))
    resized = lambda x, size: F.interpolate(x[None], size, mode='bilinear')[0]  # noqa: E731
    for i, tags in enumerate(([1, 0, 1], [0, 1, 0])):
        picture = np.random.default_rng(i).integers(0, 256, (10, 14, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / f'{i}.png')
        logits = torch.randn(4, 10, 14)
        sample = SegDataSample(metainfo=dict(img_path=f'{tmp_path}/{i}.png'))
        sample.seg_logits = PixelData(data=logits)
        sample.set_field(torch.tensor(tags), 'gt_score')
        samples.append(sample)
        ids = [0, *(c + 1 for c in range(3) if tags[c])]
        image = torch.tensor(picture).permute(2, 0, 1) / 255
        planes = MODELS.build(refiner)(
            resized(image, low)[None], resized(logits[ids].exp() / logits[ids].exp().sum(dim=0), low)[None]
        )[0]
        expected.append(torch.tensor(ids)[resized(planes, (10, 14)).argmax(dim=0)])
    keep_to_tags(samples, 1)
    assert any((sample.pred_sem_seg.data[0] != mask).any() for sample, mask in zip(samples, expected, strict=True))
    keep_to_tags(samples, 1, Refinement(refiner, scale))
    for sample, mask in zip(samples, expected, strict=True):
        assert torch.equal(sample.pred_sem_seg.data[0], mask)


def test_a_refiner_in_the_settings_refines_the_masks_of_the_rounds(data, tmp_path):
    """The pipeline resizes the pictures; the refiner has them as they are."""
    cfg = cyclic_config(data, tmp_path, rounds=1, **{'train_cfg.masks.test_cfg': dict(refine=PAR)})
    runner = Runner.from_cfg(cfg)
    runner.train()
    manifest = json.loads((tmp_path / 'round_1/manifest.json').read_text())
    assert manifest['settings']['refine'] == PAR and manifest['settings']['mode'] == 'whole'
    dataset, model, changed = DATASETS.build(cfg.train_cfg.masks.dataloader.dataset), runner.model.eval(), 0
    for item in dataset:
        with torch.no_grad():
            samples = model.test_step(pseudo_collate([item]))
        keep_to_tags(samples, 1)
        unrefined = samples[0].pred_sem_seg.data[0].numpy().copy()
        keep_to_tags(samples, 1, Refinement(PAR))
        written = np.array(Image.open(tmp_path / f'round_1/{samples[0].sample_id}.png'))
        assert (written == samples[0].pred_sem_seg.data[0].numpy()).mean() > 0.999  # a batch of one rounds otherwise
        changed += (written != unrefined).mean()
    assert changed > 0.01


def test_each_round_is_measured(finished, data):
    work_dir, _ = finished
    rows = json.loads((work_dir / 'rounds.json').read_text())
    assert [row['round'] for row in rows] == [0, 1, 2]
    before = masks_in(data / 'masks')
    for row in rows[1:]:
        masks = masks_in(work_dir / f'round_{row["round"]}')
        equal = np.mean([masks[name] == before[name] for name in NAMES])
        assert row['agreement'] == pytest.approx(100 * equal, abs=0.01)
        assert row['mIoU'] == json.loads((work_dir / f'round_{row["round"]}/manifest.json').read_text())['mIoU']
        before = masks
        network = Runner.from_cfg(cyclic_config(data, data / 'val', load_from=f'{work_dir}/round_{row["round"]}.pth'))
        assert row['val_mIoU'] == pytest.approx(network.val()['mIoU'], abs=0.01) and row['val_mIoU'] > 0
    assert len({row['val_mIoU'] for row in rows}) == 3


def test_agreement_is_that_of_the_pixels_that_neither_mask_ignores(tmp_path):
    for name, mask in (('a', [[1, 2, 255, 4]]), ('b', [[1, 3, 3, 255]]), ('c', [[255] * 4])):
        Image.fromarray(np.array(mask, np.uint8)).save(tmp_path / f'{name}.png')
    a, b, c = (tmp_path / f'{name}.png' for name in 'abc')
    assert (agreement([a], [b]), agreement([a, a], [b, a]), agreement([a], [c])) == (50.0, 80.0, 0.0)


def test_the_rounds_end_when_the_agreement_does_not_rise_any_more(finished, data, tmp_path):
    """A run of this kind that is resumed has ended too."""
    _, first, second = (row['agreement'] for row in figures(finished[0]))
    risen = second - first
    for folder, settled, rounds in (('goes on', risen - 0.01, 3), ('ends', risen + 0.01, 2)):
        work_dir = tmp_path / folder
        for resume in (False, True):
            runner = Runner.from_cfg(
                cyclic_config(data, work_dir, rounds=3, resume=resume, **{'train_cfg.settled': settled})
            )
            runner.train()
            assert runner.iter == rounds * STEPS and (work_dir / 'round_3').exists() == (rounds == 3)
            assert figures(work_dir)[:3] == figures(finished[0])


def train_and_die(cfg, name):
    """Train, but end the process when a file whose path ends with `name` is about to appear."""
    replace = os.replace

    def deadly(source, target):
        if str(target).endswith(name):
            os._exit(DIED)
        replace(source, target)

    os.replace = deadly
    Runner.from_cfg(cfg).train()


@pytest.mark.parametrize(
    'place',
    [
        ('round_1/2007_000002.png', 4),
        ('iter_6.pth', 4),  # inside round 2, before a checkpoint
        ('iter_8.pth', 6),
    ],
    ids=lambda place: place[0],
)
def test_a_run_that_is_killed_ends_as_one_left_alone(finished, data, tmp_path, place):
    name, resumed_from = place
    process = multiprocessing.get_context('fork').Process(
        target=train_and_die, args=(cyclic_config(data, tmp_path), name)
    )
    process.start()
    process.join()
    assert process.exitcode == DIED
    runner = Runner.from_cfg(cyclic_config(data, tmp_path, resume=True))
    seen = watched(runner)
    runner.train()
    assert len(seen) == 2 * STEPS - resumed_from
    assert figures(tmp_path) == figures(finished[0])
    for number in (1, 2):
        for path in (finished[0] / f'round_{number}').glob('*.png'):
            assert (tmp_path / f'round_{number}' / path.name).read_bytes() == path.read_bytes()
    weights = [
        torch.load(folder / 'round_2.pth', weights_only=False)['state_dict'] for folder in (finished[0], tmp_path)
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def train_rounds(folder):
    processes = dist.get_world_size() if dist.is_initialized() else 1
    work_dir = folder / f'work_{processes}'
    cfg = cyclic_config(folder, work_dir)
    cfg.train_dataloader.batch_size = 2 // processes
    cfg.train_dataloader.dataset.pipeline = [LOAD, MASK, RESIZE, PACK]  # each process draws its own augmentation
    if processes > 1:
        cfg.launcher, cfg.model_wrapper_cfg = 'pytorch', dict(device_ids=None)
    torch.set_default_dtype(torch.float64)
    try:
        Runner.from_cfg(cfg).train()
    finally:
        torch.set_default_dtype(torch.float32)


def test_two_processes_write_the_masks_and_figures_of_one(tmp_path):
    make_data(tmp_path)
    train_rounds(tmp_path)
    run_in_processes(2, train_rounds, tmp_path)
    one, two = ((tmp_path / f'work_{number}') for number in (1, 2))
    assert figures(one) == figures(two)
    for number in (1, 2):
        first, second = masks_in(one / f'round_{number}'), masks_in(two / f'round_{number}')
        assert all((first[name] == second[name]).all() for name in NAMES)


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        ({'param_scheduler': [dict(type='PolyLR', by_epoch=False)]}, ValueError, r"of 4 steps, got \['PolyLR to 8'\]"),
        ({'train_dataloader.dataset.type': 'aream_mm.MaskDataset'}, TypeError, 'expected a PseudoMaskDataset'),
        ({'model.decode_head.num_classes': 6}, ValueError, 'expected a data set of 6 classes, one for each plane'),
        ({'train_cfg.masks.cam_dir': 'cams'}, ValueError, 'expected a CAMSegmentor for cam_dir, got EncoderDecoder'),
        (
            {'train_cfg.masks.test_cfg': dict(refine=dict(type='aream_mm.PAR'), refine_scale=2)},
            ValueError,
            'expected 0 < refine_scale <= 1, got 2',
        ),
    ],
)
def test_settings_that_cannot_work_are_refused_before_training(data, tmp_path, changes, error, message):
    cfg = cyclic_config(data, tmp_path, **changes)
    if error is TypeError:
        del cfg.train_dataloader.dataset['mask_dir']
    with pytest.raises(error, match=message):
        Runner.from_cfg(cfg).train()


def test_pictures_without_a_mask_to_begin_with_are_refused(data, tmp_path):
    folder = Path(write_masks(tmp_path / 'masks', NAMES[1:], ANIMALS))
    cfg = cyclic_config(data, tmp_path / 'work')
    cfg.train_dataloader.dataset.merge(dict(mask_dir=str(folder), drop_unmasked=True))
    with pytest.raises(ValueError, match=f'a mask of each picture .*1 lack: {folder}/2007_000000.png'):
        Runner.from_cfg(cfg).train()


def test_a_run_to_resume_without_its_first_weights_is_refused(data, tmp_path):
    torch.save(dict(state_dict={}, meta=dict(iter=2, epoch=0), message_hub=dict()), tmp_path / 'iter_2.pth')
    runner = Runner.from_cfg(cyclic_config(data, tmp_path))
    runner.train_loop._iter = 2
    with pytest.raises(FileNotFoundError, match='expected .*initial.pth, which a run to resume has'):
        runner.train()


@pytest.mark.parametrize(
    ('config', 'kind', 'size'),
    [
        ('seg/deeplabv3plus_lite0_animals_cyclic.py', 'voc', (96, 80)),
        ('demo/deeplabv3plus_demo_cyclic.py', 'demo', (64, 64)),
    ],
)
def test_a_config_writes_masks_of_the_pictures_that_it_trains_on(toy_folders, tmp_path, config, kind, size):
    cfg = load_config(ROOT / 'configs' / config, dict(data_root=str(toy_folders[kind])))
    written = DATASETS.build(cfg.train_cfg.masks.dataloader.dataset)
    ids = [written.get_data_info(i)['sample_id'] for i in range(len(written))]
    mask_dir = write_masks(tmp_path / 'masks', ids, written.metainfo['classes'], size)
    trained = DATASETS.build(dict(cfg.train_dataloader.dataset, mask_dir=mask_dir))
    assert [trained.get_data_info(i)['sample_id'] for i in range(len(trained))] == ids
    assert trained.metainfo['classes'] == written.metainfo['classes']
