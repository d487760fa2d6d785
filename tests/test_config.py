"""Every config finds its data below one folder; those of neither stage 1 (test_stage_1.py) nor configs/seg build."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from options import load_config
from toy_own import CLASSES
from toy_voc import write_masks

CONFIGS = Path(__file__).parents[1] / 'configs'
RUNS = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
OTHERS = ('affinity_net', 'deeplabv3plus')
WALKS = [path for path in RUNS if path.stem.endswith('_walk')]
TABLES = [CONFIGS / 'experiment_voc.py']  # of other configs; see test_table.py
TRAINED = [path for path in RUNS if path not in [*WALKS, *TABLES] and path.parent.name != 'seg']  # test_seg_configs.py
STAGE_1 = [path for path in TRAINED if not path.stem.startswith(OTHERS)]
REST = [path for path in TRAINED if path not in STAGE_1]


def data_of(path):
    """Which of the `toy_folders` stands for the data of a config."""
    stem = path.stem
    return 'demo' if 'demo' in path.parts else 'own' if 'own' in stem else 'coco' if stem.endswith('_coco') else 'voc'


@pytest.mark.parametrize('path', REST, ids=lambda path: path.stem)
def test_a_config_builds_and_takes_one_training_step(path, toy_folders, tmp_path):
    cfg = load_config(path, dict(data_root=str(toy_folders[data_of(path)])))
    init_default_scope(cfg.default_scope)
    train = cfg.train_dataloader.dataset
    if 'mask_dir' in train:
        images = DATASETS.build(train.dataset)
        size = (64, 64) if data_of(path) == 'demo' else (96, 80)
        folder = Path(images.data_prefix['img_path'])
        paths = [Path(images.get_data_info(i)['img_path']) for i in range(len(images))]
        names = [path.relative_to(folder).with_suffix('').as_posix() for path in paths]
        train.mask_dir = write_masks(tmp_path / 'masks', names, images.metainfo['classes'], size)
    dataset = DATASETS.build(train)
    samples = [dataset[0], dataset[1]]
    size = cfg.model.data_preprocessor.get('size')
    if size is not None:  # of mmseg's decoders, which are quick for a corner of the images
        cfg.model.data_preprocessor.size = (128, 128)
        for sample in samples:
            assert all(side <= most for side, most in zip(sample['inputs'].shape[-2:], size, strict=True))
            sample['inputs'] = sample['inputs'][:, :128, :128]
            sample['data_samples'].gt_sem_seg = sample['data_samples'].gt_sem_seg[:128, :128]
    model = MODELS.build(cfg.model)
    batch = pseudo_collate(samples)
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


@pytest.mark.parametrize('path', WALKS, ids=lambda path: path.stem)
def test_a_walk_has_the_net_that_is_trained_on_masks_of_the_same_network(path, tmp_path):
    cfg, own = load_config(path), load_config(path.with_stem(path.stem.removesuffix('_walk')))
    refine = cfg.custom_hooks[0].test_cfg.refine
    name, iterations = Path(refine.checkpoint).parent.name, Path(refine.checkpoint).stem
    trained = load_config(CONFIGS / f'{name}.py')
    init_default_scope('mmseg')
    net = MODELS.build(trained.model)
    assert cfg.model == own.model and iterations == f'iter_{trained.train_cfg.max_iters}'
    assert Path(cfg.custom_hooks[0].out_dir).parent == Path(trained.train_dataloader.dataset.mask_dir).parent
    torch.save(dict(state_dict=net.state_dict()), tmp_path / 'net.pth')
    walk = MODELS.build(dict(refine, checkpoint=str(tmp_path / 'net.pth'))).eval()
    images, planes = torch.rand(1, 3, 64, 72), torch.rand(1, 2, 64, 72)
    inputs = [each.data_preprocessor(dict(inputs=list(images)))['inputs'] for each in (net, walk.net)]
    assert torch.equal(*inputs) and torch.equal(net.eval()(images), walk.net(images))
    assert walk(images, planes).shape == planes.shape


def test_the_classes_of_own_photographs_stand_in_one_place(tmp_path):
    configs = shutil.copytree(CONFIGS, tmp_path / 'configs')
    base = configs / '_base_/datasets/own.py'
    base.write_text(base.read_text().replace(str(CLASSES), "('background', 'owl', 'jay', 'tit', 'daw')"))
    first, second = load_config(configs / 'own_photographs.py'), load_config(configs / 'seg/own_photographs.py')
    assert (first.model.head.num_classes, second.model.decode_head.num_classes) == (4, 5)
    for cfg in (first, second):
        assert cfg.train_dataloader.dataset.dataset.metainfo.classes == ('background', 'owl', 'jay', 'tit', 'daw')


def test_the_lines_that_validate_stage_2_of_own_photographs_stand_beside_those_that_do_not(tmp_path):
    config = shutil.copytree(CONFIGS, tmp_path / 'configs') / 'seg/own_photographs.py'
    text = config.read_text().replace('train_cfg = dict(max_iters=max_iters)\nval_cfg = None\n', '')
    config.write_text(text.replace('#   train_cfg', 'train_cfg').replace('#   val_', 'val_'))
    cfg = load_config(config)
    assert cfg.val_cfg == dict(type='ValLoop') and cfg.train_cfg.val_interval == 1000
    assert (cfg.val_dataloader, cfg.val_evaluator) == (cfg.test_dataloader, cfg.test_evaluator)


def test_the_crop_of_stage_2_is_set_in_one_place():
    for name in ('seg/own_photographs.py', 'seg/deeplabv3plus_lite0_animals.py', 'affinity_net_animals.py'):
        cfg = load_config(CONFIGS / name, dict(small_crop_size=(96, 128)))
        (crop,) = [step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomCrop']
        assert crop.crop_size == (96, 128) == cfg.model.data_preprocessor.size
        with pytest.raises(ValueError, match='crop_size'):
            load_config(CONFIGS / name, dict(crop_size=(96, 128)))


def test_classes_without_background_are_all_that_own_photographs_without_it_need():
    first, second = [
        load_config(CONFIGS / name, dict(classes=('water', 'wood', 'town')))
        for name in ('own_photographs.py', 'seg/own_photographs.py')
    ]
    assert (first.model.head.num_classes, second.model.decode_head.num_classes) == (3, 3)
    assert first.model.test_cfg.background is None
    assert first.model.train_cfg == dict(low=None, high=None)


@pytest.mark.parametrize('path', RUNS, ids=lambda path: path.stem)
def test_the_head_of_a_config_states_its_command(path):
    head = path.read_text().split('_base_')[0]
    tool = 'tools/test.py' if path in WALKS else 'tools/train.py'
    tool = 'tools/experiment.py' if path.stem.startswith('experiment') else tool
    assert f'python {tool} {path.relative_to(CONFIGS.parent)}' in head
    assert 'Expect:' in head


def bases_below(path):
    """How many bases one below the other a file of `_base_` has, mmseg's among them."""
    bases = Config._get_base_files(str(path))
    return max((1 if '::' in base else 1 + bases_below(path.parent / base) for base in bases), default=0)


@pytest.mark.parametrize('path', RUNS, ids=lambda path: path.stem)
def test_a_config_is_at_most_two_bases_deep_and_varies_at_most_one_that_varies_none(path):
    bases = Config._get_base_files(str(path))
    varied = [base for base in bases if '_base_' not in base]
    assert all(bases_below(path.parent / base) <= 1 for base in bases if base not in varied)
    for base in varied:
        assert all('_base_' in below for below in Config._get_base_files(str(path.parent / base)))


def test_data_root_moves_every_path_below_it_and_nothing_else():
    cfg = load_config(CONFIGS / 'aream_vit_voc.py', dict(data_root='/elsewhere/VOC2012'))
    assert cfg.data_root == cfg.train_dataloader.dataset.dataset.data_root == '/elsewhere/VOC2012'
    assert cfg.val_dataloader.dataset.tag_file == '/elsewhere/VOC2012/cls_labels.npy'
    assert cfg.custom_hooks[1].dataloader.dataset.dataset.data_root == '/elsewhere/VOC2012'
    assert cfg.train_dataloader.dataset.dataset.ann_file == 'ImageSets/Segmentation/trainaug.txt'
    assert 'data/VOCdevkit' not in cfg.pretty_text


@pytest.mark.parametrize('base', ['mmseg::_base_/models/fcn_r50-d8.py', 'mmpretrain::_base_/models/resnet18.py'])
def test_configs_inherit_from_mmseg_and_mmpretrain(tmp_path, base):
    (tmp_path / 'config.py').write_text(f'_base_ = {base!r}\n')
    assert 'backbone' in load_config(tmp_path / 'config.py').model
