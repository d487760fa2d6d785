"""Every config builds, and the data folder is set in one place."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from toy_coco import make_coco
from toy_own import CLASSES, make_own
from toy_voc import make_voc, write_masks

from aream_mm.config import load_config
from aream_mm.datasets.demo import generate_demo

CONFIGS = Path(__file__).parents[1] / 'configs'
RUNS = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Folders that stand for VOC, for COCO, for the demo set and for somebody's own photographs."""
    folder = tmp_path_factory.mktemp('data')
    generate_demo(folder / 'demo', num_train=4, num_val=2, size=64)
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_coco(folder / 'coco', monkeypatch)
    own = make_own(folder / 'own')
    return dict(voc=make_voc(folder / 'voc'), coco=folder / 'coco', demo=folder / 'demo', own=own)


@pytest.mark.parametrize('path', RUNS, ids=lambda path: path.stem)
def test_a_config_builds_and_takes_one_training_step(path, data, tmp_path):
    stem = path.stem
    kind = 'demo' if 'demo' in path.parts else 'own' if 'own' in stem else 'coco' if stem.endswith('_coco') else 'voc'
    root = data[kind]
    cfg = load_config(path, dict(data_root=str(root)))
    init_default_scope(cfg.default_scope)
    train = cfg.train_dataloader.dataset
    if 'mask_dir' in train:
        pictures = DATASETS.build(train.dataset)
        size = (64, 64) if kind == 'demo' else (96, 80)
        folder = Path(pictures.data_prefix['img_path'])
        paths = [Path(pictures.get_data_info(i)['img_path']) for i in range(len(pictures))]
        names = [path.relative_to(folder).with_suffix('').as_posix() for path in paths]
        train.mask_dir = write_masks(tmp_path / 'masks', names, pictures.metainfo['classes'], size)
    dataset = DATASETS.build(train)
    model = MODELS.build(cfg.model)
    if getattr(model, 'aream', None) and not model.aream.measured:
        model.aream.weigh_layers(torch.arange(12))
    batch = pseudo_collate([dataset[0], dataset[1]])
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    loaders = (
        cfg.get('val_dataloader') or cfg.test_dataloader,
        *(hook.dataloader for hook in cfg.get('custom_hooks', ()) if 'dataloader' in hook),
    )
    for loader in filter(None, loaders):  # an AffinityNet has nothing to validate
        DATASETS.build(loader.dataset)[0]


def test_the_classes_of_own_photographs_stand_in_one_place(tmp_path):
    configs = shutil.copytree(CONFIGS, tmp_path / 'configs')
    base = configs / '_base_/datasets/own.py'
    base.write_text(base.read_text().replace(str(CLASSES), "('background', 'owl', 'jay', 'tit', 'daw')"))
    first, second = load_config(configs / 'own_photographs.py'), load_config(configs / 'seg/own_photographs.py')
    assert (first.model.head.num_classes, second.model.decode_head.num_classes) == (4, 5)
    for cfg in (first, second):
        assert cfg.train_dataloader.dataset.dataset.metainfo.classes == ('background', 'owl', 'jay', 'tit', 'daw')


@pytest.mark.parametrize('path', RUNS, ids=lambda path: path.stem)
def test_the_head_of_a_config_states_its_command(path):
    head = path.read_text().split('_base_')[0]
    assert f'python tools/train.py {path.relative_to(CONFIGS.parent)}' in head
    assert 'Expect:' in head


def test_data_root_moves_every_path_below_it_and_nothing_else():
    cfg = load_config(CONFIGS / 'aream_vit_voc.py', dict(data_root='/elsewhere/VOC2012/'))
    assert cfg.data_root == '/elsewhere/VOC2012/'
    assert cfg.train_dataloader.dataset.dataset.data_root == '/elsewhere/VOC2012'
    assert cfg.val_dataloader.dataset.tag_file == '/elsewhere/VOC2012/cls_labels.npy'
    assert cfg.custom_hooks[1].dataloader.dataset.dataset.data_root == '/elsewhere/VOC2012'
    assert cfg.train_dataloader.dataset.dataset.ann_file == 'ImageSets/Segmentation/trainaug.txt'
    assert 'data/VOCdevkit' not in cfg.pretty_text


def test_other_options_are_merged_as_usual():
    options = {'data_root': '/a', 'train_dataloader.batch_size': 3, 'data_root_of_mine': 'data/VOCdevkit/VOC2012x'}
    cfg = load_config(CONFIGS / 'aream_vit_voc.py', options)
    assert cfg.train_dataloader.batch_size == 3
    assert cfg.data_root_of_mine == 'data/VOCdevkit/VOC2012x'


def test_data_root_for_a_config_without_one_is_refused(tmp_path):
    (tmp_path / 'config.py').write_text('model = dict()\n')
    with pytest.raises(ValueError, match='expected a config with a data_root to override, got None'):
        load_config(tmp_path / 'config.py', dict(data_root='/a'))


@pytest.mark.parametrize('base', ['mmseg::_base_/models/fcn_r50-d8.py', 'mmpretrain::_base_/models/resnet18.py'])
def test_configs_inherit_from_mmseg_and_mmpretrain(tmp_path, base):
    (tmp_path / 'config.py').write_text(f'_base_ = {base!r}\n')
    assert 'backbone' in load_config(tmp_path / 'config.py').model
