"""What the tests share: golden vectors, the toy segmentor with the authors' weights, samples with tags, toy data."""

import gc
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from draw_demo import draw_demo
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmseg.structures import SegDataSample
from toy_coco import make_coco
from toy_own import make_own
from toy_voc import make_voc

from aream_mm.registry import MODELS

# The toys are small, and a machine may be busy, be it with the tests of another worker.
torch.set_num_threads(1)
os.environ['OMP_NUM_THREADS'] = '1'  # of the processes that tests start

ROOT = Path(__file__).parents[1]
DATA = ROOT / 'tests' / 'data'
TOY = dict(
    type='aream_mm.CAMSegmentor',
    backbone=dict(
        type='aream_mm.AttentionViT',
        name='vit_tiny_patch16_224',
        num_class_tokens=5,
        img_size=64,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        architecture=dict(embed_dim=24, depth=6, num_heads=3),
    ),
    head=dict(type='aream_mm.CAMHead', num_classes=5, in_channels=24),
    attention_loss=dict(type='aream_mm.AReAMLoss', layer_index=3),
)


@pytest.fixture(scope='session', autouse=True)
def imports_kept_from_the_garbage_collector():
    """mmengine collects garbage for every data set that it makes, a quarter of a second for all that is imported."""
    gc.freeze()


@pytest.fixture(scope='session', autouse=True)
def scope_of_the_configs():
    """As each tool begins; a test may be the first of its process."""
    init_default_scope('mmseg')


@pytest.fixture(scope='session', autouse=True)
def configs_without_layout():
    """mmengine has yapf lay out a config whenever it logs or saves it: seconds for each run of a toy."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **options: (text, True))
        yield


@pytest.fixture(scope='session', autouse=True)
def cache_of_the_tests(tmp_path_factory):
    """What is read of images is not remembered beyond the tests, nor between them and the user."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        home = tmp_path_factory.mktemp('torch')
        (home / 'hub').mkdir()  # so that the fuzzer sees no folder made
        monkeypatch.setenv('TORCH_HOME', str(home))
        yield


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def golden():
    """Inputs and outputs of the authors' program, see `authors_toy.npz`; never written to."""
    with np.load(DATA / 'authors_toy.npz') as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


@pytest.fixture(scope='session')
def converted_checkpoint(tmp_path_factory):
    """The path of the authors' toy checkpoint, converted on the command line."""
    path = tmp_path_factory.mktemp('converted') / 'toy.pth'
    converter = ROOT / 'tools' / 'converters' / 'authors_checkpoint.py'
    subprocess.run([sys.executable, converter, DATA / 'authors_toy_checkpoint.pth', path], check=True)
    return str(path)


@pytest.fixture(scope='session')
def toy_folders(tmp_path_factory):
    """Folders that stand for VOC, for COCO, for the demo set and for somebody's own photographs; never written to."""
    folder = tmp_path_factory.mktemp('data')
    draw_demo(folder / 'demo', num_train=4, num_val=2, size=64)
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_coco(folder / 'coco', monkeypatch)
    make_voc(folder / 'voc'), make_own(folder / 'own')
    return {kind: folder / kind for kind in ('voc', 'coco', 'demo', 'own')}


@pytest.fixture
def toy_config():
    """The config of the toy segmentor, to be changed at will."""
    return deepcopy(TOY)


@pytest.fixture
def build_toy(toy_config, converted_checkpoint):
    """build_toy(backbone=dict(…), train_cfg=…): the toy segmentor with the authors' weights, options changed."""

    def build(backbone=(), **options):
        toy_config['backbone'].update(backbone)
        model = MODELS.build({**toy_config, **options})
        load_checkpoint(model, converted_checkpoint, map_location='cpu', strict=True)
        return model.eval()

    return build


@pytest.fixture
def toy_segmentor(build_toy):
    return build_toy()


@pytest.fixture
def label_masks():
    """label_masks(model, images (B, 3, H, W), tags (B, C)): the label of the model's attention loss, (B, H, W)."""

    @torch.no_grad()
    def make(model, images, tags):
        attended = model.backbone(images, model.attention_loss.label_affinity)
        return model.label_masks(images, tags, model.head(attended)[0], attended)

    return make


@pytest.fixture
def make_samples():
    """make_samples(tags (B, C) or None, size (height, width), count): data samples as the pipeline packs them."""

    def make(tags=None, size=(64, 64), count=2):
        samples = [SegDataSample(metainfo=dict(ori_shape=size)) for _ in range(count if tags is None else len(tags))]
        for sample, tag in zip(samples, [] if tags is None else tags, strict=tags is not None):
            sample.set_field(tag, 'gt_score')
        return samples

    return make
