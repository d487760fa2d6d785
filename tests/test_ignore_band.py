"""The band between two background scores: what is ignored, what is measured of the rest, and stage 2 on such masks."""

import json

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from options import load_config
from PIL import Image
from test_config import CONFIGS, RUNS
from test_engine import hook_of, run_config
from torch.testing import assert_close
from toy_voc import make_voc

from aream_mm.engine import PseudoMaskHook
from aream_mm.models import PAR
from aream_mm.models.cam import reliable_masks

BAND = (0.3, 0.6)
REFINE = dict(type='aream_mm.PAR', dilations=(1, 2), num_iters=3)


@torch.no_grad()
def predict(model, golden, samples):
    return model.predict(golden['denormalized'], samples)


def masks_of(predictions):
    return torch.stack([prediction.pred_sem_seg.data[0] for prediction in predictions])


def cams_of(predictions, num_classes=5):
    """The CAMs (B, C, H, W) of all classes, 0 for those that are not in the image."""
    cam = torch.zeros(len(predictions), num_classes, *predictions[0].cam.data.shape[-2:])
    for all_classes, prediction in zip(cam, predictions, strict=True):
        all_classes[prediction.cam_classes - 1] = prediction.cam.data
    return cam


def test_a_refined_mask_is_the_reliable_mask_of_its_cam(build_toy, golden, make_samples):
    predictions = predict(build_toy(test_cfg=dict(band=BAND, refine=REFINE)), golden, make_samples(golden['labels']))
    par = PAR(dilations=(1, 2), num_iters=3)
    expected = reliable_masks(cams_of(predictions), golden['labels'], golden['denormalized'], par, *BAND)
    assert torch.equal(masks_of(predictions), expected)
    assert {0, 255} < set(expected.unique().tolist())


def test_without_a_refiner_the_band_lies_between_two_scores_of_the_cam(build_toy, golden, make_samples):
    predictions = predict(build_toy(test_cfg=dict(band=BAND)), golden, make_samples(golden['labels']))
    highest, classes = cams_of(predictions).max(dim=1)
    expected = torch.where(highest > BAND[1], classes + 1, torch.where(highest > BAND[0], 255, 0))
    assert torch.equal(masks_of(predictions), expected)
    assert {0, 255} < set(expected.unique().tolist())


@pytest.mark.parametrize('refine', [None, REFINE])
def test_a_band_of_no_width_ignores_nothing(build_toy, golden, make_samples, refine):
    band = build_toy(test_cfg=dict(band=(0.5, 0.5), refine=refine))
    plain = build_toy(test_cfg=dict(background=0.5, refine=refine))
    for one, other in zip(
        *(predict(model, golden, make_samples(golden['labels'])) for model in (band, plain)), strict=True
    ):
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
        assert_close(one.seg_logits.data, other.seg_logits.data)


@pytest.mark.parametrize('refine', [None, REFINE])
def test_the_logits_are_those_of_the_high_score(build_toy, golden, make_samples, refine):
    model = build_toy(test_cfg=dict(band=BAND, refine=refine))
    for prediction in predict(model, golden, make_samples(golden['labels'], size=(50, 70))):
        mask = prediction.pred_sem_seg.data[0]
        assert mask.shape == (50, 70) and prediction.seg_logits.data.shape == (6, 50, 70)
        known = mask != 255
        assert 0.1 < known.float().mean() < 0.99
        assert torch.equal(prediction.seg_logits.data.argmax(dim=0)[known], mask[known])


def test_both_scores_share_the_affinity_of_the_image(build_toy, golden, make_samples, monkeypatch):
    calls, affinity = [], PAR.affinity
    monkeypatch.setattr(PAR, 'affinity', lambda self, images: calls.append(1) or affinity(self, images))
    predict(build_toy(test_cfg=dict(band=BAND, refine=REFINE)), golden, make_samples(golden['labels']))
    assert len(calls) == 1


def test_an_image_without_classes_is_background_and_not_doubtful(build_toy, golden, make_samples):
    model = build_toy(test_cfg=dict(band=(0.0, 0.5), refine=REFINE))
    assert not masks_of(predict(model, golden, make_samples(torch.zeros(2, 5)))).any()


@pytest.mark.parametrize('band', [(0.6, 0.4), (0.4,), (-0.1, 0.4), (0.4, 1.1), (0.2, 0.4, 0.6)])
def test_a_band_that_makes_no_sense_is_refused(build_toy, band):
    with pytest.raises(ValueError, match=r'test_cfg.band: expected \(low, high\) with 0 <= low <= high <= 1'):
        build_toy(test_cfg=dict(band=band))


def test_a_band_without_background_is_refused(build_toy):
    with pytest.raises(ValueError, match=r'a background score \(which is None\)'):
        build_toy(test_cfg=dict(band=BAND, background=None), train_cfg=dict(low=None, high=None))


# The hook


@pytest.fixture(scope='module')
def runner(tmp_path_factory):
    """A runner that has trained nothing, over four drawn images."""
    folder = tmp_path_factory.mktemp('run')
    root = make_voc(folder / 'voc')
    return Runner.from_cfg(run_config(root, folder / 'work'))


def written(runner, folder, **test_cfg):
    """The manifest and the masks that a hook with these settings writes."""
    hook = PseudoMaskHook(hook_of(runner).dataloader, str(folder), test_cfg=test_cfg)
    hook.before_train(runner)
    hook.write(runner, 'some.pth')
    masks = [np.array(Image.open(path)) for path in sorted(folder.glob('*.png'))]
    return json.loads((folder / 'manifest.json').read_text()), masks


def confident_miou(runner, masks):
    """mIoU in percent over the pixels that neither mask nor truth ignores, pixel by pixel."""
    root = runner.cfg.train_dataloader.dataset.dataset.data_root
    pixels = []
    for i, mask in enumerate(masks):
        truth = np.array(Image.open(f'{root}/SegmentationClass/2007_{i:06d}.png'))
        ids = {old: new for new, old in enumerate([0, 8, 10, 12, 13, 15, 17])}
        pixels += zip(mask.ravel().tolist(), [ids.get(value, 255) for value in truth.ravel().tolist()], strict=True)
    pixels = [(guess, true) for guess, true in pixels if guess != 255 and true != 255]
    ious = []
    for c in range(7):
        union = sum(c in pair for pair in pixels)
        ious += [sum(pair == (c, c) for pair in pixels) / union] if union else []
    return 100 * np.mean(ious)


def test_the_manifest_gives_the_share_of_ignored_pixels_and_the_miou_of_the_others(runner, tmp_path):
    manifest, masks = written(runner, tmp_path / 'masks', band=BAND, refine=REFINE)
    ignored = np.mean([mask == 255 for mask in masks])
    assert 0.05 < ignored < 0.95
    assert manifest['ignored'] == pytest.approx(100 * ignored, abs=0.01)
    assert manifest['mIoU'] == pytest.approx(confident_miou(runner, masks), abs=0.01)
    assert manifest['settings']['band'] == list(BAND)


def test_without_a_band_nothing_is_ignored(runner, tmp_path):
    manifest, masks = written(runner, tmp_path / 'masks')
    assert manifest['ignored'] is None and not any((mask == 255).any() for mask in masks)


def test_masks_that_ignore_everything_have_no_miou(runner, tmp_path, monkeypatch):
    monkeypatch.setattr('aream_mm.models.cam.ignore_doubtful', lambda low, high: torch.full_like(high, 255))
    manifest, masks = written(runner, tmp_path / 'masks', band=BAND)
    assert manifest['ignored'] == 100 and manifest['mIoU'] is None


# Stage 2


def losses_of(config):
    """Every cross-entropy among the losses of a config, wherever it stands."""
    found = []
    for value in config.values() if isinstance(config, dict) else config:
        if isinstance(value, dict | list | tuple):
            found += [value] if isinstance(value, dict) and value.get('type') == 'CrossEntropyLoss' else []
            found += losses_of(value)
    return found


@pytest.mark.parametrize('path', [path for path in RUNS if 'seg' in path.parts or 'deeplab' in path.stem], ids=str)
def test_stage_2_averages_over_the_pixels_that_are_not_ignored(path):
    losses = losses_of(load_config(path).model)
    assert losses and all(loss.get('avg_non_ignore') for loss in losses)


def test_a_batch_whose_every_pixel_is_ignored_has_a_loss_of_zero_with_a_gradient():
    cfg = load_config(CONFIGS / 'seg/deeplabv3plus_lite0_animals.py')
    init_default_scope(cfg.default_scope)
    model = MMENGINE_MODELS.build(cfg.model).train()
    samples = [SegDataSample(gt_sem_seg=PixelData(data=torch.full((1, 64, 64), 255))) for _ in range(2)]
    loss, _ = model.parse_losses(model.loss(torch.rand(2, 3, 64, 64), samples))
    loss.backward()
    assert loss == 0
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert gradients and all(not gradient.any() and gradient.isfinite().all() for gradient in gradients)
