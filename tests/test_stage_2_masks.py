"""What stage 2 predicts on the photographs that it is trained on, as masks: of the tags alone, refined, measured."""

import json

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

from aream_mm.datasets.contents import read_digest
from aream_mm.models.refined import keep_to_tags, photograph, refine_samples
from aream_mm.models.settings import RefineSettings
from aream_mm.registry import DATASETS, MODELS

NAMES = [f'2007_{i:06d}' for i in range(4)]
STEPS = 4
PAR = dict(type='aream_mm.PAR', dilations=[1, 2], num_iters=3)
CRF = dict(type='aream_mm.DenseCRF', num_iters=3, gaussian_compat=1, bilateral_compat=1)
LOAD, RESIZE = dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64))
MASK, PACK = dict(type='LoadAnnotations'), dict(type='PackSegInputs')


def stage_2_config(folder, work_dir, **changes):
    """Four steps over four images, a validation, and masks of these images by the network itself."""
    images = voc_config(folder / 'voc', metainfo=dict(classes=ANIMALS))
    tags = dict(type='aream_mm.ImageTagDataset', dataset=images, tag_file=f'{folder}/voc/cls_labels.npy')
    in_order = dict(type='DefaultSampler', shuffle=False, round_up=False)
    cfg = Config(
        dict(
            default_scope='mmseg',
            work_dir=str(work_dir),
            model=dict(
                type='aream_mm.RefinedEncoderDecoder',
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
                    dataset=images,
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
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
            param_scheduler=[dict(type='PolyLR', end=STEPS, by_epoch=False)],
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=STEPS, val_interval=STEPS),
            custom_hooks=[
                dict(
                    type='aream_mm.PseudoMaskHook',
                    dataloader=dict(
                        batch_size=2,
                        num_workers=0,
                        sampler=in_order,
                        dataset=dict(
                            tags, pipeline=[LOAD, RESIZE, dict(type='aream_mm.PackTagInputs')], test_mode=True
                        ),
                    ),
                ),
            ],
            default_hooks=dict(
                checkpoint=dict(type='aream_mm.SafeCheckpointHook', by_epoch=False, interval=STEPS),
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
    """Images, tags and masks of stage 1, the i-th of which is of class i throughout: a network soon gives others."""
    make_voc(folder / 'voc')
    write_masks(folder / 'masks', NAMES, ANIMALS)
    return folder


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('stage_2'))


@pytest.fixture(scope='module')
def finished(data):
    """Work dir of a finished run."""
    Runner.from_cfg(stage_2_config(data, data / 'alone')).train()
    return data / 'alone'


def masks_in(folder):
    return {name: np.array(Image.open(folder / f'{name}.png')) for name in NAMES}


def test_untagged_classes_never_appear_and_the_masks_fit_the_images(finished, data):
    tags = np.load(data / 'voc/cls_labels.npy', allow_pickle=True).item()
    animals = [7, 9, 11, 12, 14, 16]  # of VOC's 20
    masks = masks_in(finished / 'pseudo_masks')
    for name, mask in masks.items():
        assert mask.shape == (80, 96)
        assert set(np.unique(mask)) <= {0, *(np.flatnonzero(tags[name][animals]) + 1)}
    trained_on = masks_in(data / 'masks')
    assert any((masks[name] != trained_on[name]).any() for name in NAMES)


def test_the_masks_are_measured(finished):
    assert 0 < json.loads((finished / 'pseudo_masks/manifest.json').read_text())['mIoU'] < 100


@pytest.mark.parametrize(('first_id', 'expected'), [(1, [0, 2, 3]), (0, [2, 1, 1])])
def test_a_mask_is_the_highest_logit_of_the_tagged_classes_and_background(first_id, expected):
    """Of four planes, the second or the first of which belongs to a class that the image does not show."""
    planes = [[3.0, 0, 0], [9.0, 9, 9], [1.0, 2, 2], [2.0, 1, 3]]
    planes = planes if first_id else [[9.0, 9, 9], [1.0, 2, 2], [2.0, 1, 1]]
    sample = SegDataSample(seg_logits=PixelData(data=torch.tensor(planes)[:, None]))
    sample.set_field(torch.tensor([0.0, 1, 1]), 'gt_score')
    keep_to_tags(sample)
    assert sample.pred_sem_seg.data.tolist() == [[expected]]


@pytest.mark.parametrize('scale', [1.0, 0.5])
@pytest.mark.parametrize('refiner', [PAR, CRF], ids=lambda refiner: refiner['type'])
def test_masks_are_refined_with_the_image_among_the_tagged_classes(tmp_path, refiner, scale):
    """Images of a batch have different numbers of tags."""
    samples, expected = [], []
    low = (int(10 * scale), int(14 * scale))
    resized = lambda x, size: F.interpolate(x[None], size, mode='bilinear')[0]  # noqa: E731
    for i, tags in enumerate(([1, 0, 1], [0, 1, 0])):
        image = np.random.default_rng(i).integers(0, 256, (10, 14, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / f'{i}.png')
        logits = torch.randn(4, 10, 14)
        sample = SegDataSample(metainfo=dict(img_path=f'{tmp_path}/{i}.png'))
        sample.seg_logits = PixelData(data=logits)
        sample.set_field(torch.tensor(tags), 'gt_score')
        samples.append(sample)
        ids = [0, *(c + 1 for c in range(3) if tags[c])]
        whole = torch.tensor(image).permute(2, 0, 1) / 255
        planes = MODELS.build(refiner)(
            resized(whole, low)[None], resized(logits[ids].exp() / logits[ids].exp().sum(dim=0), low)[None]
        )[0]
        expected.append(torch.tensor(ids)[resized(planes, (10, 14)).argmax(dim=0)])
    for sample in samples:
        keep_to_tags(sample)
    assert any((sample.pred_sem_seg.data[0] != mask).any() for sample, mask in zip(samples, expected, strict=True))
    planes = [sample.seg_logits.data.softmax(dim=0) for sample in samples]
    images = [photograph(sample, planes[0]) for sample in samples]
    refine_samples(samples, planes, images, RefineSettings(refiner, scale))
    for sample, mask in zip(samples, expected, strict=True):
        assert torch.equal(sample.pred_sem_seg.data[0], mask)


def test_a_refiner_in_the_settings_refines_the_masks(data, tmp_path):
    """The pipeline resizes the images; the refiner has them as they are."""
    cfg = stage_2_config(data, tmp_path, **{'custom_hooks.0.test_cfg': dict(refine=PAR)})
    runner = Runner.from_cfg(cfg)
    runner.train()
    manifest = json.loads((tmp_path / 'pseudo_masks/manifest.json').read_text())
    assert manifest['settings']['refine'] == PAR and manifest['settings']['mode'] == 'whole'
    dataset, model, changed = DATASETS.build(cfg.custom_hooks[0].dataloader.dataset), runner.model.eval(), 0
    for item in dataset:
        batch = model.data_preprocessor(pseudo_collate([item]))
        masks = []
        for refine in (None, PAR):
            with torch.no_grad():
                (sample,) = model.predict(**batch, settings=RefineSettings(refine))
            masks.append(sample.pred_sem_seg.data[0].numpy())
        unrefined, refined = masks
        written = np.array(Image.open(tmp_path / f'pseudo_masks/{sample.sample_id}.png'))
        assert (written == refined).mean() > 0.999  # a batch of one rounds otherwise
        changed += (written != unrefined).mean()
    assert changed > 0.01


def train_alone_or_together(folder):
    processes = dist.get_world_size() if dist.is_initialized() else 1
    cfg = stage_2_config(folder, folder / f'work_{processes}')
    cfg.train_dataloader.batch_size = 2 // processes
    cfg.train_dataloader.dataset.pipeline = [LOAD, MASK, RESIZE, PACK]  # each process draws its own augmentation
    if processes > 1:
        cfg.launcher, cfg.model_wrapper_cfg = 'pytorch', dict(device_ids=None)
    torch.set_default_dtype(torch.float64)
    try:
        Runner.from_cfg(cfg).train()
    finally:
        torch.set_default_dtype(torch.float32)


def test_two_processes_write_the_masks_of_one(tmp_path):
    make_data(tmp_path)
    train_alone_or_together(tmp_path)
    run_in_processes(2, train_alone_or_together, tmp_path)
    one, two = (tmp_path / f'work_{number}/pseudo_masks' for number in (1, 2))
    mious = [json.loads((folder / 'manifest.json').read_text())['mIoU'] for folder in (one, two)]
    assert mious[0] == mious[1]
    first, second = masks_in(one), masks_in(two)
    assert all((first[name] == second[name]).all() for name in NAMES)


@pytest.mark.parametrize('change', [None, 'mask', 'left out'])
def test_a_resumed_run_tells_that_its_masks_have_changed(tmp_path, monkeypatch, change):
    make_data(tmp_path)
    options = {'train_cfg.val_interval': 9, 'custom_hooks': []}
    Runner.from_cfg(stage_2_config(tmp_path, tmp_path / 'work', **options)).train()
    cfg = stage_2_config(tmp_path, tmp_path / 'work', **options, resume=True)
    if change == 'mask':
        Image.new('L', (96, 80), 3).save(tmp_path / f'masks/{NAMES[1]}.png')
    elif change:
        (tmp_path / 'left_out').write_text(f'{read_digest(tmp_path / f"masks/{NAMES[1]}.png")}  {NAMES[1]}\n')
        cfg.train_dataloader.dataset.left_out = str(tmp_path / 'left_out')
    runner, told = Runner.from_cfg(cfg), []
    monkeypatch.setattr(runner.logger, 'warning', told.append)
    runner.train()
    said = [text for text in told if 'the masks are others than those that the run began with' in text]
    assert len(said) == bool(change) and all(str(tmp_path / 'masks') in text for text in said)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'model.decode_head.num_classes': 6}, 'expected a data set of 6 classes, with background, as the network'),
        (
            {'custom_hooks.0.test_cfg': dict(refine=dict(type='aream_mm.PAR'), refine_scale=2)},
            'test_cfg.refine_scale: expected a number above 0 and up to 1, got 2',
        ),
    ],
)
def test_settings_that_cannot_work_are_refused_before_training(data, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        Runner.from_cfg(stage_2_config(data, tmp_path, **changes)).train()
