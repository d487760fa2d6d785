"""Stage 2 refined at test time by a switch of tools/test.py: with one view and with several, in masks and in files."""

import runpy
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.apis import MMSegInferencer
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from options import load_config
from PIL import Image
from torch.testing import assert_close
from toy_voc import make_voc

from aream_mm.models import RefinedTTAModel
from aream_mm.models import cam as cams

ROOT = Path(__file__).parents[1]
CRF = dict(type='aream_mm.DenseCRF', num_iters=3, gaussian_compat=1, bilateral_compat=1)
PAR = dict(type='aream_mm.PAR', num_iters=3)
SCALES = {False: (6.4,), True: (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)}  # 6.4: 80 pixels to the 512 of the test pipeline


def switch(refiner):
    return [f'model.test_cfg.refine.{key}={value}' for key, value in refiner.items()]


@pytest.fixture(scope='module')
def stage_2(tmp_path_factory):
    """Folder of a toy VOC, the config of a small network over it and a checkpoint of random weights."""
    folder = tmp_path_factory.mktemp('stage_2')
    make_voc(folder / 'voc')
    (folder / 'config.py').write_text(f"""
_base_ = [{str(ROOT / 'configs/_base_/seg_runtime.py')!r},
          {str(ROOT / 'configs/_base_/models/deeplabv3plus_lite0.py')!r},
          {str(ROOT / 'configs/_base_/datasets/voc_pseudo.py')!r}]
model = dict(backbone=dict(pretrained=False), decode_head=dict(num_classes=21))
""")
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(load_config(folder / 'config.py').model)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=30)  # several classes in each image
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


@pytest.fixture
def merge_views():
    return runpy.run_path(str(ROOT / 'tools/test.py'))['merge_views']


@pytest.fixture(scope='module')
def images(stage_2):
    """The two images of `val`, (H, W, 3) RGB in 0..255."""
    return [np.array(Image.open(stage_2 / f'voc/JPEGImages/2007_{i:06d}.jpg')) for i in (4, 5)]


@pytest.fixture(scope='module')
def unrefined(stage_2, images):
    """unrefined[tta]: the mean probabilities (2, 21, H, W), without a pipeline, a preprocessor or mmseg's averaging."""
    init_default_scope('mmseg')
    model = MODELS.build(load_config(stage_2 / 'config.py').model).eval()
    model.load_state_dict(torch.load(stage_2 / 'checkpoint.pth')['state_dict'])

    def planes(image, scale, mirror):
        scaled = tensor(mmcv.imrescale(image, scale))
        with torch.no_grad():
            logits = model(scaled.flip(-1) if mirror else scaled, mode='tensor')
        logits = cams.upsample(logits, scaled.shape[-2:])
        return cams.upsample(logits.flip(-1) if mirror else logits, image.shape[:2]).softmax(dim=1)

    def mean(image, tta):
        views = [planes(image, scale, mirror) for scale in SCALES[tta] for mirror in (False, True)[: 1 + tta]]
        return torch.cat(views).mean(dim=0)

    probabilities = {tta: torch.stack([mean(image, tta) for image in images]) for tta in (False, True)}
    assert all(len(planes.argmax(dim=0).unique()) > 1 for planes in probabilities[True])
    return probabilities


def tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None] / 255


def assert_mask(mask, planes):
    """The mask (H, W) is an argmax of the planes (K, H, W), whose best two may be equal to rounding."""
    chosen = planes.gather(0, torch.as_tensor(mask).long().view(1, *planes.shape[1:]))
    assert_close(chosen, planes.amax(dim=0, keepdim=True), rtol=0, atol=1e-4)


@pytest.mark.parametrize('tta', [False, True])
def test_without_the_switch_predictions_are_the_mean_over_the_views(run_tool, unrefined, tta):
    measured, files = run_tool(*['--tta'][: int(tta)])
    assert len(measured) == len(files) == 2
    for sample, file, planes in zip(measured, files, unrefined[tta], strict=True):
        assert_mask(sample['pred_sem_seg']['data'], planes)
        assert_mask(file, planes)


@pytest.mark.parametrize('own', [True, False])
def test_the_mean_over_views_leaves_a_network_its_preprocessor(merge_views, own):
    cfg = load_config(ROOT / 'configs/seg/upernet_dinov2-s_voc.py')
    if not own:  # it then has that of the config
        del cfg.model['data_preprocessor']
    expected = cfg.model.data_preprocessor if own else cfg.data_preprocessor
    merge_views(cfg)
    assert cfg.model.data_preprocessor == expected and cfg.model.type == 'aream_mm.RefinedTTAModel'


@pytest.mark.parametrize('refiner', [CRF, PAR])
@pytest.mark.parametrize('tta', [False, True])
def test_with_the_switch_predictions_and_files_are_those_of_the_refiner(run_tool, images, unrefined, refiner, tta):
    measured, files = run_tool(*['--tta'][: int(tta)], cfg_options=switch(refiner))
    expected = MODELS.build(refiner)(torch.cat([tensor(image) for image in images]), unrefined[tta])
    assert (expected.argmax(dim=1) != unrefined[tta].argmax(dim=1)).float().mean() > 0.01
    assert len(measured) == len(files) == 2
    for sample, file, planes in zip(measured, files, expected, strict=True):
        assert_close(sample['seg_logits']['data'], planes, rtol=0, atol=1e-4)
        assert_mask(sample['pred_sem_seg']['data'], planes)
        assert_mask(file, planes)
        assert 'gt_sem_seg' in sample


@pytest.mark.parametrize('tta', [False, True])
def test_images_without_masks_are_refined_too(run_tool, images, unrefined, tta):
    options = [*switch(PAR), 'test_evaluator.format_only=True']
    measured, files = run_tool(*['--tta'][: int(tta)], cfg_options=options)
    expected = MODELS.build(PAR)(torch.cat([tensor(image) for image in images]), unrefined[tta])
    assert not any('gt_sem_seg' in sample for sample in measured)
    for file, planes in zip(files, expected, strict=True):
        assert_mask(file, planes)


@pytest.mark.parametrize('batch_size', [1, 2])
def test_the_resolution_of_the_refiner_is_a_setting(run_tool, images, unrefined, batch_size):
    options = ['model.test_cfg.refine_scale=0.5', f'test_dataloader.batch_size={batch_size}']
    measured, _ = run_tool(cfg_options=[*switch(CRF), *options])
    inputs = torch.cat([tensor(image) for image in images])
    refined = MODELS.build(CRF)(cams.upsample(inputs, (40, 48)), cams.upsample(unrefined[False], (40, 48)))
    for sample, planes in zip(measured, cams.upsample(refined, (80, 96)), strict=True):
        assert_close(sample['seg_logits']['data'], planes, rtol=0, atol=1e-4)


def network(out_channels=2, **test_cfg):
    """Config of a small stage 2."""
    return ConfigDict(
        type='aream_mm.RefinedEncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[9, 99, 199], std=[9, 19, 29], bgr_to_rgb=True),
        backbone=dict(type='aream_mm.TimmCNN', name='test_convnext', out_indices=(1,)),
        decode_head=dict(
            type='FCNHead',
            in_channels=32,
            in_index=0,
            channels=8,
            num_convs=1,
            num_classes=2,
            out_channels=out_channels,
        ),
        test_cfg=dict(mode='whole', **test_cfg),
    )


def sample_of(path, planes):
    sample = SegDataSample(metainfo=dict(img_path=str(path)))
    sample.seg_logits = PixelData(data=planes)
    return sample


def test_images_of_several_sizes_are_refined_each(tmp_path):
    model, views = RefinedTTAModel(network(refine=CRF)), []
    for i, size in enumerate([(8, 12), (10, 6)]):
        image = np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / f'{i}.png')
        views.append((image, torch.randn(2, *size), torch.randn(2, *size)))
    together = model.merge_preds(
        [tuple(sample_of(tmp_path / f'{i}.png', logits) for logits in both) for i, (_, *both) in enumerate(views)]
    )
    for merged, (image, *both) in zip(together, views, strict=True):
        planes = torch.stack(both).softmax(dim=1).mean(dim=0, keepdim=True)
        assert_close(merged.seg_logits.data, MODELS.build(CRF)(tensor(image), planes)[0])


def predictions(model, images, samples=None, **settings):
    with torch.no_grad():
        return model.eval().predict(images, samples, **settings)


@pytest.fixture
def built():
    """built(out_channels=2, refine=…): a small stage 2 whose classes both occur."""

    def build(*args, **test_cfg):
        init_default_scope('mmseg')
        torch.manual_seed(0)
        model = MODELS.build(network(*args, **test_cfg))
        torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=30)
        return model

    return build


def test_an_image_without_a_file_is_refined_as_the_network_gets_it(built, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    model = built(refine=PAR)
    inputs = model.data_preprocessor(dict(inputs=[torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)]))
    Image.fromarray(image).save(tmp_path / 'image.png')
    sample = SegDataSample(metainfo=dict(img_path=str(tmp_path / 'image.png'), ori_shape=(48, 64), img_shape=(48, 64)))
    (from_file,) = predictions(model, inputs['inputs'], [sample])
    without_path = SegDataSample(metainfo=dict(img_path=None, ori_shape=(48, 64), img_shape=(48, 64)))
    for samples in ([without_path], None):
        (alone,) = predictions(model, inputs['inputs'], samples)
        assert_close(alone.seg_logits.data, from_file.seg_logits.data, rtol=1e-4, atol=1e-4)


def test_settings_of_a_prediction_are_an_argument(built):
    model, images = built(refine=PAR), torch.randn(1, 3, 48, 64)
    (refined,), (plain,) = (
        predictions(model, images),
        predictions(model, images, settings=model.settings_with(refine=None)),
    )
    (unrefined,) = predictions(built(), images)
    assert torch.equal(plain.seg_logits.data, unrefined.seg_logits.data)
    assert not torch.equal(refined.pred_sem_seg.data, plain.pred_sem_seg.data)
    assert torch.equal(predictions(model, images)[0].seg_logits.data, refined.seg_logits.data)


@pytest.mark.parametrize('refine', [None, PAR])
def test_tags_leave_their_classes_and_background_alone(built, refine):
    model, images = built(refine=refine), torch.randn(2, 3, 48, 64)
    samples = [SegDataSample(metainfo=dict(ori_shape=(48, 64), img_shape=(48, 64))) for _ in range(2)]
    samples[0].set_field(torch.tensor([0.0]), 'gt_score')
    samples[1].set_field(torch.tensor([1.0]), 'gt_score')
    (untagged, tagged), (_, free) = predictions(model, images, samples), predictions(model, images)
    assert not untagged.pred_sem_seg.data.any()
    assert torch.equal(tagged.pred_sem_seg.data, free.pred_sem_seg.data) and tagged.pred_sem_seg.data.any()


def test_an_inferencer_refines_files_and_arrays(stage_2, images, unrefined, tmp_path):
    load_config(stage_2 / 'config.py', {'model.test_cfg.refine': PAR}).dump(tmp_path / 'config.py')
    inferencer = MMSegInferencer(str(tmp_path / 'config.py'), str(stage_2 / 'checkpoint.pth'), dataset_name='voc')
    for image, i, planes in zip(images, (4, 5), unrefined[False], strict=True):
        expected = MODELS.build(PAR)(tensor(image), planes[None])[0]
        found = inferencer(f'{stage_2}/voc/JPEGImages/2007_{i:06d}.jpg', show=False, return_datasamples=True)
        assert_mask(found.pred_sem_seg.data.cpu(), expected)
        found = inferencer(image[..., ::-1].copy(), show=False, return_datasamples=True)
        agree = found.pred_sem_seg.data.cpu()[0] == expected.argmax(dim=0)
        assert agree.float().mean() > 0.95


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match='expected a network of 2 planes or more, got 1'):
        MODELS.build(network(1, refine=CRF))
    for scale in (0, 2):
        with pytest.raises(
            ValueError, match=f'test_cfg.refine_scale: expected a number above 0 and up to 1, got {scale}'
        ):
            MODELS.build(network(refine=CRF, refine_scale=scale))
    with pytest.raises(ValueError, match=r"test_cfg: expected some of mode, .* got \['refien'\]"):
        MODELS.build(network(refien=CRF))
    plain = ConfigDict(network(), type='EncoderDecoder')
    with pytest.raises(
        TypeError, match='RefinedTTAModel: expected an aream_mm.RefinedEncoderDecoder, got EncoderDecoder'
    ):
        RefinedTTAModel(plain)
