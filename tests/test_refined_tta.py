"""Stage 2 refined at test time by a switch of tools/test.py: with one view and with several, in masks and in files."""

import runpy
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from PIL import Image
from torch import nn
from torch.testing import assert_close
from toy_voc import make_voc

from aream_mm.config import load_config
from aream_mm.models import RefinedTTAModel
from aream_mm.models import cam as cams

ROOT = Path(__file__).parents[1]
CRF = dict(type='aream_mm.DenseCRF', num_iters=3, gaussian_compat=1, bilateral_compat=1)
SWITCH = [f'model.test_cfg.refine.{key}={value}' for key, value in CRF.items()]


@pytest.fixture(scope='module')
def stage_2(tmp_path_factory):
    """Folder of a toy VOC, the config of a small network over it and a checkpoint of random weights."""
    folder = tmp_path_factory.mktemp('stage_2')
    make_voc(folder / 'voc')
    (folder / 'config.py').write_text(f"""
_base_ = [{str(ROOT / 'configs/_base_/models/deeplabv3plus_lite0.py')!r}, 'mmseg::_base_/default_runtime.py',
          'mmseg::_base_/schedules/schedule_20k.py', {str(ROOT / 'configs/_base_/datasets/voc_pseudo.py')!r}]
model = dict(backbone=dict(pretrained=False), decode_head=dict(num_classes=21))
""")
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(load_config(folder / 'config.py').model)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=30)  # several classes in each picture
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'checkpoint.pth')
    return folder


@pytest.fixture
def run_tool(stage_2, tmp_path, monkeypatch):
    """run_tool(argument, …, cfg_options=…): the predictions that tools/test.py measures, and the masks it writes."""

    def run(*arguments, cfg_options=()):
        measured, process = [], IoUMetric.process
        monkeypatch.setattr(
            IoUMetric, 'process', lambda self, batch, samples: measured.extend(samples) or process(self, batch, samples)
        )
        options = [f'data_root={stage_2}/voc', 'test_dataloader.num_workers=0']
        options += ['test_dataloader.persistent_workers=False', *cfg_options]
        command = ['test.py', stage_2 / 'config.py', stage_2 / 'checkpoint.pth', '--work-dir', tmp_path / 'work']
        command += ['--out', tmp_path / 'out', *arguments, '--cfg-options', *options]
        monkeypatch.setattr(sys, 'argv', [str(part) for part in command])
        runpy.run_path(str(ROOT / 'tools/test.py'), run_name='__main__')
        return measured, [np.array(Image.open(path)) for path in sorted((tmp_path / 'out').iterdir())]

    return run


@pytest.fixture(scope='module')
def of_mmseg(stage_2):
    """of_mmseg[tta]: mmseg's own probabilities (21, H, W) of each picture, the mean over the views."""
    cfg = load_config(stage_2 / 'config.py', dict(data_root=f'{stage_2}/voc'))
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model).eval()
    load_checkpoint(model, str(stage_2 / 'checkpoint.pth'), strict=True)
    probabilities = {}
    for tta in (False, True):
        pipeline = cfg.tta_pipeline if tta else cfg.test_dataloader.dataset.pipeline
        dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, pipeline=pipeline))
        probabilities[tta] = []
        for packed in dataset:
            views = zip(packed['inputs'], packed['data_samples'], strict=True) if tta else [tuple(packed.values())]
            with torch.no_grad():
                samples = [model.test_step(dict(inputs=[x], data_samples=[sample]))[0] for x, sample in views]
            assert len(samples) == (12 if tta else 1)
            planes = torch.stack([sample.seg_logits.data.softmax(dim=0) for sample in samples]).mean(dim=0)
            probabilities[tta].append(planes)
    assert len(probabilities[True][0].argmax(dim=0).unique()) > 1
    return probabilities


def photographs(stage_2):
    paths = [stage_2 / f'voc/JPEGImages/2007_{i:06d}.jpg' for i in (4, 5)]
    return torch.stack([torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255 for path in paths])


def agree(mask, planes):
    """Whether the mask is the argmax, but for ties of the last bit."""
    return (torch.as_tensor(mask).squeeze() != planes.argmax(dim=0)).float().mean() < 0.001


@pytest.mark.parametrize('tta', [False, True])
def test_without_the_switch_predictions_are_those_of_mmseg(run_tool, of_mmseg, tta):
    measured, files = run_tool(*['--tta'][: int(tta)], cfg_options=['model.test_cfg.refine=None'])
    assert len(measured) == len(files) == 2
    for sample, file, planes in zip(measured, files, of_mmseg[tta], strict=True):
        assert agree(sample['pred_sem_seg']['data'], planes) and agree(file, planes)


@pytest.mark.parametrize('tta', [False, True])
def test_with_the_switch_predictions_and_files_are_those_of_the_refiner(run_tool, of_mmseg, stage_2, tta):
    measured, files = run_tool(*['--tta'][: int(tta)], cfg_options=SWITCH)
    expected = MODELS.build(CRF)(photographs(stage_2), torch.stack(of_mmseg[tta]))
    assert (expected.argmax(dim=1) != torch.stack(of_mmseg[tta]).argmax(dim=1)).float().mean() > 0.01
    for sample, file, planes in zip(measured, files, expected, strict=True):
        assert_close(sample['seg_logits']['data'], planes, rtol=0, atol=0.01)
        assert agree(sample['pred_sem_seg']['data'], sample['seg_logits']['data'])
        assert agree(file, sample['seg_logits']['data'])
        assert 'gt_sem_seg' in sample


@pytest.mark.parametrize('batch_size', [1, 2])
def test_the_resolution_of_the_refiner_is_a_setting(run_tool, of_mmseg, stage_2, batch_size):
    options = ['model.test_cfg.refine_scale=0.5', f'test_dataloader.batch_size={batch_size}']
    measured, _ = run_tool(cfg_options=[*SWITCH, *options])
    images, planes = photographs(stage_2), torch.stack(of_mmseg[False])
    refined = MODELS.build(CRF)(cams.upsample(images, (40, 48)), cams.upsample(planes, (40, 48)))
    for sample, expected in zip(measured, cams.upsample(refined, (80, 96)), strict=True):
        assert_close(sample['seg_logits']['data'], expected, rtol=0, atol=0.01)


class Segmentor(nn.Module):
    """A stand-in for a network, of which only the number of planes matters."""

    def __init__(self, out_channels):
        super().__init__()
        self.out_channels = out_channels

    def test_step(self, data):
        raise NotImplementedError


def sample_of(path, planes):
    sample = SegDataSample(metainfo=dict(img_path=str(path)))
    sample.seg_logits = PixelData(data=planes)
    return sample


def test_pictures_of_several_sizes_are_refined_each(tmp_path):
    model = RefinedTTAModel(Segmentor(2), CRF)
    logits = [torch.randn(2, 8, 12), torch.randn(2, 10, 6)]
    for i, planes in enumerate(logits):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (*planes.shape[1:], 3), np.uint8)).save(
            tmp_path / f'{i}.png'
        )
    together = model.merge_preds([(sample_of(tmp_path / f'{i}.png', planes),) for i, planes in enumerate(logits)])
    for i, (merged, planes) in enumerate(zip(together, logits, strict=True)):
        image = torch.from_numpy(np.array(Image.open(tmp_path / f'{i}.png'))).permute(2, 0, 1)[None] / 255
        assert_close(merged.seg_logits.data, model.refiner(image, planes.softmax(dim=0)[None])[0])


def test_predictions_of_another_size_than_the_picture_are_refused_by_name(tmp_path):
    Image.new('RGB', (12, 8)).save(tmp_path / 'turned.png')
    model = RefinedTTAModel(Segmentor(2), CRF)
    with pytest.raises(ValueError, match=r'turned.png: expected predictions of the size of the picture \(8, 12\)'):
        model.merge_preds([(sample_of(tmp_path / 'turned.png', torch.randn(2, 12, 8)),)])


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match='expected planes of 2 classes or more, got 1'):
        RefinedTTAModel(Segmentor(1), CRF)
    with pytest.raises(ValueError, match='expected 0 < refine_scale <= 1, got 2'):
        RefinedTTAModel(Segmentor(2), CRF, refine_scale=2)


def test_stage_1_refines_by_itself():
    cfg = load_config(ROOT / 'configs/aream_dual_animals.py', {'model.test_cfg.refine.type': 'aream_mm.DenseCRF'})
    before = deepcopy(cfg)
    runpy.run_path(str(ROOT / 'tools/test.py'))['merge_views'](cfg, tta=False)
    assert cfg.model == before.model and cfg.test_dataloader == before.test_dataloader
