"""Refiners as a setting: built once, no part of the segmentor, at any resolution, and through an interruption."""

import json
import shutil
import sys

import pytest
import refiners
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint
from mmseg.evaluation import IoUMetric
from options import load_config
from test_engine import LOAD, PACK, hook_of, run_config
from test_stage_2_masks import make_data, stage_2_config
from torch import nn
from torch.testing import assert_close
from toy_voc import make_voc

from aream_mm.engine.pseudo_masks import fingerprint
from aream_mm.models import CAMSegmentor, Refiner, cam
from aream_mm.registry import MODELS

PAR = dict(type='aream_mm.PAR', dilations=(1, 2))
CRF = dict(type='aream_mm.DenseCRF', bilateral_sxy=20, workers=2)


class Recorder(Refiner):
    """A refiner with weights that keeps the sizes it was given and returns what it got."""

    built = []

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.sizes = []
        self.built.append(self)

    def refine(self, images, planes):
        assert not self.training
        self.sizes.append(tuple(planes.shape[-2:]))
        return planes


@pytest.fixture
def recorder(monkeypatch):
    """The config of a `Recorder`; `Recorder.built` are those that were built."""
    monkeypatch.setitem(MODELS.module_dict, 'Recorder', Recorder)
    monkeypatch.setattr(Recorder, 'built', [])
    return dict(type='aream_mm.Recorder')


def predict(model, golden, make_samples):
    with torch.no_grad():
        return model.predict(golden['denormalized'], make_samples(golden['labels']))


def test_a_refiner_is_built_once_and_is_no_part_of_the_segmentor(build_toy, recorder, golden, make_samples):
    model = build_toy(test_cfg=dict(refine=recorder))
    names, modules, weights = set(model.state_dict()), len(list(model.modules())), fingerprint(model)
    for _ in range(3):
        predict(model, golden, make_samples)
    assert len(Recorder.built) == 1 and len(Recorder.built[0].sizes) == 3
    assert set(model.state_dict()) == names and len(list(model.modules())) == modules
    assert fingerprint(model) == weights


@pytest.mark.parametrize(
    ('settings', 'size'), [(dict(), (32, 32)), (dict(refine_scale=1), (64, 64)), (dict(refine_scale=0.3), (19, 19))]
)
def test_the_resolution_of_a_refiner_is_a_setting(build_toy, recorder, golden, make_samples, settings, size):
    samples = predict(build_toy(test_cfg=dict(refine=recorder, **settings)), golden, make_samples)
    assert Recorder.built[0].sizes == [size]
    assert samples[0].pred_sem_seg.data.shape == (1, 64, 64)


@pytest.mark.parametrize('scale', [0, 1.5])
def test_a_resolution_that_makes_no_sense_is_refused(build_toy, scale):
    with pytest.raises(ValueError, match=f'test_cfg.refine_scale: expected a number above 0 and up to 1, got {scale}'):
        build_toy(test_cfg=dict(refine_scale=scale))


def test_at_full_resolution_a_refiner_gets_the_softmax_of_the_scores():
    scores, images = torch.rand(1, 2, 7, 9), torch.rand(1, 3, 7, 9)
    (planes,) = cam.refine(scores, torch.tensor([[True, False]]), images, Recorder().eval(), (0.4,), scale=1)
    expected = torch.stack([torch.full((7, 9), 0.4), scores[0, 0]]).softmax(dim=0)
    assert_close(planes[0, :2], expected)
    assert not planes[0, 2].any()


@pytest.mark.parametrize('refine', [PAR, CRF, dict(CRF, label_confidence=0.7)])
def test_each_refiner_changes_masks_keeps_cams_and_knows_only_the_tags(build_toy, golden, make_samples, refine):
    before = predict(build_toy(), golden, make_samples)
    after = predict(build_toy(test_cfg=dict(refine=refine)), golden, make_samples)
    for one, other, tags in zip(before, after, golden['labels'], strict=True):
        assert torch.equal(one.cam.data, other.cam.data)
        assert not other.seg_logits.data[1:][tags == 0].any()
        assert (one.pred_sem_seg.data != other.pred_sem_seg.data).float().mean() > 0.01
        assert_close(one.pred_sem_seg.data, other.pred_sem_seg.data, rtol=0, atol=5)


def test_labels_of_the_loss_take_any_refiner(build_toy, golden, label_masks):
    """Two background scores, of which a CRF takes one at a time."""
    masks = label_masks(build_toy(refiner=CRF), golden['denormalized'], golden['labels'])
    assert not torch.equal(masks, golden['seg_uni'])
    for mask, tags in zip(masks, golden['labels'], strict=True):
        assert set(mask.unique().tolist()) <= {0, 255, *(tags.nonzero().flatten() + 1).tolist()}


def test_masks_that_a_dense_crf_refines_go_on_after_an_interruption(tmp_path):
    cfg = run_config(make_voc(tmp_path / 'voc'), tmp_path / 'work', **{'train_cfg.max_epochs': 1})
    cfg.custom_hooks[1].test_cfg = dict(refine=CRF)
    cfg.custom_hooks[1].dataloader.batch_size = 2
    runner = Runner.from_cfg(cfg)
    runner.train()
    folder, hook, predict = tmp_path / 'work/pseudo_masks', hook_of(runner), runner.model.predict
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(whole) == 5 and json.loads(whole['manifest.json'])['settings']['refine'] == CRF

    for path in folder.iterdir():
        path.unlink()
    refiner, calls = hook.settings.refiner, []

    def interrupted(**batch):
        if calls:
            raise KeyboardInterrupt
        calls.append(batch)
        return predict(**batch)

    runner.model.predict = interrupted
    with pytest.raises(KeyboardInterrupt):
        hook.write(runner, str(tmp_path / 'work/epoch_1.pth'))
    assert len(list(folder.glob('*.png'))) == 2 and not (folder / 'manifest.json').exists()

    def counted(**batch):
        calls.append(batch)
        return predict(**batch)

    calls.clear()
    runner.model.predict = counted
    hook.write(runner, str(tmp_path / 'work/epoch_1.pth'))
    assert len(calls) == 1  # the other batch is kept
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert hook.settings.refiner is refiner

    # Another setting of the refiner writes all anew.
    calls.clear()
    hook.test_cfg = dict(refine=dict(CRF, num_iters=1))
    hook.before_train(runner)
    hook.write(runner, str(tmp_path / 'work/epoch_1.pth'))
    assert len(calls) == 2


def test_a_refiner_that_cannot_be_built_stops_the_run_before_training(tmp_path):
    cfg = run_config(make_voc(tmp_path / 'voc'), tmp_path / 'work')
    cfg.custom_hooks[1].test_cfg = dict(refine=dict(CRF, iterations=3))
    with pytest.raises(TypeError, match='iterations'):
        Runner.from_cfg(cfg).train()
    assert not list((tmp_path / 'work').glob('*.pth'))


# tools/refiners.py


@pytest.fixture(scope='module')
def measured_config(tmp_path_factory):
    """A config whose val_dataloader has masks, and a checkpoint of random weights."""
    folder = tmp_path_factory.mktemp('measured')
    cfg = run_config(make_voc(folder / 'voc', train=5), folder / 'work')
    cfg.val_dataloader = cfg.custom_hooks[1].dataloader
    cfg.val_dataloader.dataset.pipeline = [LOAD, dict(type='LoadAnnotations'), PACK]
    cfg.dump(folder / 'config.py')
    init_default_scope('mmseg')
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), folder / 'checkpoint.pth')
    return folder


def run_benchmark(monkeypatch, folder, *arguments):
    command = ['refiners.py', folder / 'config.py', folder / 'checkpoint.pth', '--out', folder / 'out/figures.json']
    monkeypatch.setattr(sys, 'argv', [str(part) for part in (*command, *arguments)])
    refiners.main()
    return json.loads((folder / 'out/figures.json').read_text())


def miou(folder, **settings):
    """Of the masks that the segmentor itself predicts for all images."""
    cfg = load_config(folder / 'config.py')
    model = MODELS.build(dict(cfg.model, test_cfg=settings)).eval()
    load_checkpoint(model, str(folder / 'checkpoint.pth'))
    loader, metric = Runner.build_dataloader(cfg.val_dataloader), IoUMetric()
    metric.dataset_meta = loader.dataset.metainfo
    with torch.no_grad():
        for batch in loader:
            metric.process({}, [sample.to_dict() for sample in model.test_step(batch)])
    return metric.evaluate(5)['mIoU']


def test_the_benchmark_gives_the_miou_of_each_refiner_and_runs_the_network_once(measured_config, monkeypatch, capsys):
    passes, raw_cam = [], CAMSegmentor.raw_cam
    monkeypatch.setattr(CAMSegmentor, 'raw_cam', lambda *args: passes.append(1) or raw_cam(*args))
    others = ['--scales', '0.5', '1', '--refiners', json.dumps(PAR), json.dumps(CRF)]
    figures = run_benchmark(monkeypatch, measured_config, *others)
    assert len(passes) == figures['images'] == 5 and figures['network_seconds'] > 0
    rows = figures['rows']
    names = ['PAR dilations=[1, 2]'] * 2 + ['DenseCRF bilateral_sxy=20 workers=2'] * 2
    assert [(row['refiner'], row['scale']) for row in rows] == [
        ('none', None),
        *zip(names, [0.5, 1, 0.5, 1], strict=True),
    ]
    assert rows[0]['mIoU'] == pytest.approx(miou(measured_config), abs=0.01)
    for row, refine in zip(rows[1:], (PAR, PAR, CRF, CRF), strict=True):
        assert row['mIoU'] == pytest.approx(miou(measured_config, refine=refine, refine_scale=row['scale']), abs=0.01)
        assert row['change'] == pytest.approx(row['mIoU'] - rows[0]['mIoU']) and row['seconds'] > 0
    assert len({row['mIoU'] for row in rows}) == 5
    table = capsys.readouterr().out
    assert '5 images' in table and 'DenseCRF bilateral_sxy=20' in table


def test_the_benchmark_takes_the_config_that_trains_the_net_of_a_walk(tmp_path):
    (tmp_path / 'net.py').write_text("model = dict(type='aream_mm.AffinityNet', radius=3)\n")
    config, walk = str(tmp_path / 'net.py'), dict(type='aream_mm.RandomWalk', checkpoint='net.pth')
    _, (name, *_), *_ = keys = refiners.keys_of([dict(walk, net=config)], [1], [None])
    assert name == f'RandomWalk checkpoint=net.pth net={config}'
    assert keys[name, 1, None] == dict(walk, net=dict(type='aream_mm.AffinityNet', radius=3))


def test_the_benchmark_gives_the_miou_at_each_background_score(measured_config, monkeypatch):
    others = ['--backgrounds', '0.3', '0.6', '--refiners', json.dumps(PAR)]
    rows = run_benchmark(monkeypatch, measured_config, *others)['rows']
    for row, (refine, background) in zip(rows, [(None, 0.3), (None, 0.6), (PAR, 0.3), (PAR, 0.6)], strict=True):
        assert row['background'] == background
        expected = miou(measured_config, refine=refine, background=background)
        assert row['mIoU'] == pytest.approx(expected, abs=0.01)
        unrefined = miou(measured_config, background=background)
        assert row['change'] == pytest.approx(expected - unrefined, abs=0.02)
    assert rows[0]['mIoU'] != rows[1]['mIoU']


def test_the_benchmark_takes_every_kth_image_and_par_and_dense_crf_by_itself(measured_config, monkeypatch):
    figures = run_benchmark(monkeypatch, measured_config, '--images', '2')
    assert figures['images'] == 2
    assert [(row['refiner'], row['scale']) for row in figures['rows']] == [
        ('none', None),
        ('PAR', 0.5),
        ('DenseCRF', 0.5),
    ]


def test_the_benchmark_needs_masks(measured_config):
    cfg = load_config(measured_config / 'config.py')
    cfg.val_dataloader.dataset.pipeline = [LOAD, PACK]
    with pytest.raises(ValueError, match='.jpg: expected a mask in the val_dataloader, got none'):
        refiners.measure(cfg, str(measured_config / 'checkpoint.pth'), [], None, None, None)


def test_the_benchmark_refuses_a_checkpoint_whose_classes_have_another_order(measured_config, tmp_path):
    cfg, loaded = load_config(measured_config / 'config.py'), torch.load(measured_config / 'checkpoint.pth')
    background, cat, cow, *others = cfg.val_dataloader.dataset.dataset.metainfo.classes
    meta = dict(dataset_meta=dict(classes=(background, cow, cat, *others)))
    torch.save(dict(loaded, meta=meta), tmp_path / 'other.pth')
    with pytest.raises(ValueError, match="id 1 is the first that differs: expected 'cat', got 'cow'"):
        refiners.measure(cfg, str(tmp_path / 'other.pth'), [], None, None, None)


def seg_config(folder, **changes):
    """Stage 2, with the loader of its masks where the benchmark looks for it."""
    cfg = stage_2_config(folder, folder / 'work')
    cfg.pseudo_mask_dataloader = cfg.custom_hooks[0].dataloader
    cfg.merge_from_dict(changes)
    return cfg


def test_the_benchmark_gives_the_miou_of_the_masks_that_stage_2_writes(tmp_path, monkeypatch):
    """With a refiner and without. One of the images has no true mask."""
    data, written = make_data(tmp_path), []
    (data / 'voc/SegmentationClass/2007_000003.png').unlink()
    for refine, scale in ((None, 1), (PAR, 1), (PAR, 0.5)):
        settings = dict(refine=refine, refine_scale=scale)
        work_dir = data / f'work_{len(written)}'
        Runner.from_cfg(stage_2_config(data, work_dir, **{'custom_hooks.0.test_cfg': settings})).train()
        written.append(json.loads((work_dir / 'pseudo_masks/manifest.json').read_text())['mIoU'])
    seg_config(data).dump(data / 'config.py')
    shutil.copy(data / 'work_0/iter_4.pth', data / 'checkpoint.pth')
    figures = run_benchmark(monkeypatch, data, '--scales', '1', '0.5', '--refiners', json.dumps(PAR))
    assert figures['images'] == 3
    assert [row['scale'] for row in figures['rows']] == [None, 1, 0.5]
    assert [row['mIoU'] for row in figures['rows']] == pytest.approx(written, abs=0.01)
    assert len(set(written)) == 3


@pytest.mark.parametrize(
    ('changes', 'arguments', 'message'),
    [
        ({}, ['--backgrounds', '0.5'], 'no background scores for a config of stage 2, got 0.5'),
        ({'model.type': 'EncoderDecoder'}, [], 'expected a model of .*RefinedEncoderDecoder, got EncoderDecoder'),
        ({'pseudo_mask_dataloader.dataset.test_mode': False}, [], 'expected true masks of some of 4 images'),
    ],
)
def test_the_benchmark_refuses_what_it_cannot_measure(tmp_path, monkeypatch, changes, arguments, message):
    cfg = seg_config(make_data(tmp_path), **changes)
    cfg.dump(tmp_path / 'config.py')
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), tmp_path / 'checkpoint.pth')
    with pytest.raises((TypeError, ValueError), match=message):
        run_benchmark(monkeypatch, tmp_path, *arguments)
