"""Arguments of the tools that are something else, and files that would overwrite each other: refused by name."""

import importlib.util
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from types import SimpleNamespace

import arguments
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.models import FCNHead
from mmseg.structures import SegDataSample
from torch import nn
from toy_own import make_own, own_config

from aream_mm.datasets import ImageTagDataset
from aream_mm.engine import PathVisualizer, SafeCheckpointHook
from aream_mm.evaluation import AveragePrecision, CAMMetric

ROOT = Path(__file__).parents[1]
META = dict(classes=('background', 'cat'), palette=[[0, 0, 0], [255, 0, 0]])


def tool(name: str):
    """A script of tools/, imported."""
    spec = importlib.util.spec_from_file_location(f'tested_tool_{name}', ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# Configs


@pytest.mark.parametrize('file', sorted((ROOT / 'configs').rglob('*.py')), ids=lambda path: path.stem)
def test_the_configs_of_the_house_are_readable(file):
    assert arguments.config_file(str(file)) == str(file)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('a = 1\n# für uns\n'.encode('cp1252'), r"own.py, line 2: expected text in UTF-8, got the byte 0xfc, 'ü' in"),
        ('a = 1\n'.encode('utf-16'), 'own.py, line 1: expected text in UTF-8, got the byte 0xff'),
        ('a = 1\n'.encode('utf-8-sig'), 'own.py, line 1: expected UTF-8 without a byte order mark'),
        (
            b"a = 1\nclasses = ('cat', 'dog'\nb = 2\n",
            r"own.py, line [23]: expected Python, got .*classes = \('cat'|never closed",
        ),
        (b'a = 1\n  b = 2\n', 'own.py, line 2: expected Python, got unexpected indent: .b = 2.'),
        (b"a = 'cat\n", 'own.py, line 1: expected Python, got unterminated string literal'),
        (b'a = 1\0\n', 'own.py.*: expected Python, got .*null byte'),
        ('a = ‘cat’\n'.encode(), 'own.py, line 1: expected Python, got invalid character'),
        (b"_base_ = ['gone.py']\n", r"own.py, line 1: expected files as _base_, got 'gone.py', no file"),
        (b"_base_ = '../top.py'\n", 'expected a _base_ that does not lead back to it'),
    ],
)
def test_a_config_that_cannot_be_read_is_named_with_the_line_wherever_it_is_included(tmp_path, content, message):
    (tmp_path / 'bases').mkdir()
    (tmp_path / 'bases/own.py').write_bytes(content)
    (tmp_path / 'bases/middle.py').write_text("_base_ = ['own.py', 'mmseg::_base_/default_runtime.py']\n")
    (tmp_path / 'top.py').write_text("_base_ = './bases/middle.py'\nx = 3\n")
    with pytest.raises(ArgumentTypeError, match=message):
        arguments.config_file(str(tmp_path / 'top.py'))


@pytest.mark.parametrize(
    ('kind', 'name', 'message'),
    [
        ('config_file', 'iter_4.pth', r'expected a config file \(.py .json .yaml .yml\), got'),
        ('config_file', 'gone.py', 'expected a config file, got .*gone.py. which does not exist'),
        ('config_file', 'photographs', 'expected a config file'),
        ('checkpoint_file', 'here.py', 'expected a checkpoint file'),
        ('checkpoint_file', 'photographs', 'expected a checkpoint file'),
        ('photographs', 'here.py', 'expected a photograph or a folder of photographs'),
        ('photographs', 'iter_4.pth', 'expected a photograph or a folder of photographs'),
        ('folder', 'here.py', 'expected a folder, got the file'),
        ('folder', 'out.pkl', 'expected a folder, got the name of a file'),
        ('folder', 'out/mask.PNG', 'expected a folder, got the name of a file'),
    ],
)
def test_an_argument_of_another_kind_is_refused(tmp_path, kind, name, message):
    (tmp_path / 'photographs').mkdir()
    (tmp_path / 'here.py').write_text('')
    with pytest.raises(ArgumentTypeError, match=message):
        getattr(arguments, kind)(str(tmp_path / name))


@pytest.mark.parametrize(
    ('kind', 'text', 'message'),
    [
        *[
            ('count', text, f"expected a whole number from 1 on, got '{text}'")
            for text in ('0', '-1', '2.5', 'all', '')
        ],
        *[
            ('share', text, f"expected a number above 0 and up to 1, got '{text}'")
            for text in ('40', '0', '-0.1', 'nan', '0,4', '40%')
        ],
        *[
            ('refiner', text, r'expected JSON such as {"type": "aream_mm.PAR"}, got')
            for text in ('PAR', '"aream_mm.PAR"', '{"type": "PAR"}', '{"num_iter": 3}', '{', '[]')
        ],
    ],
)
def test_a_number_or_a_refiner_that_is_none_is_refused(kind, text, message):
    with pytest.raises(ArgumentTypeError, match=message):
        getattr(arguments, kind)(text)


def test_numbers_and_refiners_are_read():
    assert arguments.count('12') == 12 and arguments.share('0.4') == 0.4 and arguments.share('1') == 1
    assert arguments.refiner('{"type": "aream_mm.PAR", "num_iter": 3}') == dict(type='aream_mm.PAR', num_iter=3)


@pytest.mark.parametrize('name', ['out', 'out.v2', 'results 1.5', '2024.11.27', 'there.png'])
def test_folders_with_dots_are_folders(tmp_path, name):
    (tmp_path / 'there.png').mkdir()
    assert arguments.folder(str(tmp_path / name)) == tmp_path / name


def test_a_new_folder_holds_nothing(tmp_path):
    (tmp_path / 'empty').mkdir(), (tmp_path / 'full/deep').mkdir(parents=True)
    for name in ('empty', 'none'):
        assert arguments.new_folder(str(tmp_path / name)) == tmp_path / name
    with pytest.raises(ArgumentTypeError, match="expected a new or empty folder, got '.*full', which holds files"):
        arguments.new_folder(str(tmp_path / 'full'))


def test_the_order_of_the_arguments_of_predict_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / 'config.py').write_text('')
    wrong = [str(tmp_path / 'config.py'), str(tmp_path / 'iter_4.pth'), str(tmp_path), '--out', str(tmp_path / 'out')]
    monkeypatch.setattr(sys, 'argv', ['predict.py', *wrong])
    with pytest.raises(SystemExit):
        tool('predict').parse_args()
    assert 'argument photographs: expected a photograph or a folder' in capsys.readouterr().err


def test_views_of_a_config_without_any_are_refused():
    with pytest.raises(
        ValueError, match=r'--tta: expected a config with a tta_pipeline, .* stage 1 has scales and mirror'
    ):
        tool('test').merge_views(Config(dict(tta_model=dict(type='SegTTAModel'))))


@pytest.mark.parametrize(
    ('option', 'tta'), [('load_from', False), ('load_from', True), ('test_dataloader.dataset.pipeline.1.scale', True)]
)
def test_options_whose_place_an_argument_takes_are_refused(option, tta):
    require_read = tool('test').require_read
    require_read({'test_dataloader.dataset.pipeline.1.scale': 1, 'load_fromm': 2}, False)
    with pytest.raises(ValueError, match=f'{option}: expected .*, got an option without effect'):
        require_read({'model.a': 1, option: 2}, tta)


# Runs


def test_resuming_where_no_run_has_begun_is_refused_by_folder(tmp_path):
    train = tool('train')
    with pytest.raises(FileNotFoundError, match=f'--resume: expected a run in {tmp_path}/a, got no last_checkpoint'):
        train.require_a_run(str(tmp_path / 'a'))
    (tmp_path / 'b/20261127').mkdir(parents=True)
    (tmp_path / 'b/20261127/20261127.log').write_text('killed before its first checkpoint')
    train.require_a_run(str(tmp_path / 'b'))


def runner_of(
    model, number, batch_size, sampler=DefaultSampler, drop_last=False, classes=(), custom_keys=(), iteration=0, ends=()
):
    optim_wrapper, warned = dict(paramwise_cfg=dict(custom_keys=dict.fromkeys(custom_keys, {}))), []
    logger = SimpleNamespace(warning=warned.append, warned=warned)
    data = dict(dataset=SimpleNamespace(metainfo=dict(classes=classes)), sampler=sampler(range(number)))
    loader = SimpleNamespace(**data, batch_size=batch_size, drop_last=drop_last)
    state = dict(iter=iteration, max_iters=8, param_schedulers=[SimpleNamespace(end=e, by_epoch=False) for e in ends])
    cfg = Config(dict(optim_wrapper=optim_wrapper))
    return SimpleNamespace(train_dataloader=loader, model=model, cfg=cfg, logger=logger, hooks=[], **state)


POOLED = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))


def test_a_decoder_of_another_number_of_classes_than_the_data_set_is_refused_before_training():
    head, data = FCNHead(in_channels=4, channels=4, num_classes=3), dict(number=4, batch_size=2)
    model, hook = nn.ModuleDict(dict(decode_head=head)), tool('train').FittingHook()
    hook.before_train(runner_of(model, classes=('background', 'cat', 'dog'), **data))
    with pytest.raises(ValueError, match=r'model.decode_head.num_classes: expected 2, .* \(background, cat\), got 3'):
        hook.before_train(runner_of(model, classes=('background', 'cat'), **data))


def test_learning_rates_of_weights_that_are_not_there_are_named():
    model, data = nn.ModuleDict(dict(backbone=nn.Linear(2, 2), head=nn.Linear(2, 2))), dict(number=4, batch_size=2)
    for keys in ((), ('backbone', 'head.bias')):
        runner = runner_of(model, custom_keys=keys, **data)
        tool('train').FittingHook().before_train(runner)
        assert not runner.logger.warned
    runner = runner_of(model, custom_keys=('backbone', 'backbone.vit', 'haed'), **data)
    tool('train').FittingHook().before_train(runner)
    (warning,) = runner.logger.warned
    assert warning.endswith('no weight has the rate of backbone.vit, haed') and 'such as backbone.weight' in warning


@pytest.mark.parametrize(
    ('stage', 'save_best', 'message'),
    [
        (1, 'mIoU', r'expected a figure of CAMMetric \(cam/…\), AveragePrecision \(multi-label/…\), got mIoU'),
        (1, ['cam/mIoU_best', 'multilabel/mAP'], r'AveragePrecision \(multi-label/…\), got multilabel/mAP'),
        (1, ['cam/mIoU_best', 'multi-label/mAP'], None),
        (1, 'auto', None),
        ('1 without masks', 'cam/mIoU_best', r'expected a figure of AveragePrecision .*, and no masks to measure CAMs'),
        ('1 without masks', 'multi-label/mAP', None),
        (2, 'cam/mIoU_best', 'expected a figure of IoUMetric, got cam/mIoU_best'),
        (2, 'mIoU', None),
        ('without a validation', 'mIoU', None),
    ],
)
def test_a_figure_that_no_validation_gives_is_refused_before_training(tmp_path, stage, save_best, message):
    make_own(tmp_path, num_masks=0 if stage == '1 without masks' else 2)
    metrics = [IoUMetric()] if stage == 2 else [CAMMetric(), AveragePrecision()]
    dataset = ImageTagDataset(own_config(tmp_path), str(tmp_path / 'tags.csv'), test_mode=True)
    runner = runner_of(nn.Linear(2, 2), number=4, batch_size=2)
    runner.hooks = [nn.Identity(), SafeCheckpointHook(save_best=save_best)]
    runner.val_loop = stage != 'without a validation'
    runner.val_dataloader, runner.val_evaluator = SimpleNamespace(dataset=dataset), SimpleNamespace(metrics=metrics)
    if message is None:
        return tool('train').FittingHook().before_train(runner)
    with pytest.raises(ValueError, match=f'default_hooks.checkpoint.save_best: .*{message}'):
        tool('train').FittingHook().before_train(runner)


def test_an_argument_that_checkpoints_do_not_have_is_refused():
    with pytest.raises(ValueError, match=r"SafeCheckpointHook: expected arguments .*, got \['intervall'\]"):
        SafeCheckpointHook(intervall=1)


def test_a_resumed_training_that_outlasts_its_schedule_is_told_so():
    model, data, hook = nn.Linear(2, 2), dict(number=4, batch_size=2), tool('train').FittingHook()
    for iteration, ends in ((0, (4,)), (4, (2, 8)), (4, (8,)), (4, ())):
        runner = runner_of(model, iteration=iteration, ends=ends, **data)
        hook.before_train(runner)
        assert not runner.logger.warned
    runner = runner_of(model, iteration=4, ends=(2, 4), **data)
    hook.before_train(runner)
    (warning,) = runner.logger.warned
    assert 'stays what it is after 4 of 8; for a longer schedule begin anew' in warning


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(number=9, batch_size=1), 'got batch_size=1;'),
        (dict(number=9, batch_size=1, sampler=InfiniteSampler), 'got batch_size=1;'),
        (dict(number=9, batch_size=4), 'got batch_size=4 and a last batch of one of 9;'),
        (dict(number=9, batch_size=4, drop_last=True), None),
        (dict(number=9, batch_size=4, sampler=InfiniteSampler), None),
        (dict(number=8, batch_size=4), None),
        (dict(number=9, batch_size=None), None),
    ],
)
def test_a_batch_of_one_is_refused_before_training_where_it_cannot_be_normalised(options, message):
    hook, model = tool('train').FittingHook(), nn.Sequential(nn.Conv2d(3, 3, 1), POOLED)
    hook.before_train(runner_of(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), **options))
    if message is None:
        return hook.before_train(runner_of(model, **options))
    model.train()
    with pytest.raises(
        ValueError, match='Expected more than 1 value per channel'
    ):  # what torch would say, without a name
        model(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=f'train_dataloader: expected batches of two or more .* in 1, {message}'):
        hook.before_train(runner_of(model, **options))


@pytest.mark.parametrize('iteration', [0, 4])
def test_no_checkpoint_of_an_earlier_run_is_taken_for_one_of_this(tmp_path, iteration):
    names = ['best_mAP_iter_8.pth', 'iter_8.pth', 'last_checkpoint']
    for name in (*names, 'vit_small.pth'):
        (tmp_path / name).write_text(name)
    warned = []
    runner = SimpleNamespace(
        work_dir=str(tmp_path),
        iter=iteration,
        timestamp='20261127',
        logger=SimpleNamespace(info=print, warning=warned.append),
        message_hub=SimpleNamespace(runtime_info={}, update_info=print),
        train_dataloader=SimpleNamespace(dataset=None),
        val_loop=None,
        train_loop=SimpleNamespace(iter=iteration, max_iters=9),
        **dict.fromkeys(('_train_loop', '_val_loop', '_test_loop')),  # as of a runner that has built none
    )
    hook = SafeCheckpointHook(interval=4, by_epoch=False)
    hook.before_train(runner)
    moved = sorted(path.name for path in (tmp_path / 'before_20261127').glob('*'))
    assert moved == ([] if iteration else names) and (tmp_path / 'vit_small.pth').is_file()
    assert len(warned) == (iteration == 0) and all(', '.join(names) in text for text in warned)


# Files of two images


def sample(path, sample_id=None):
    meta = dict(img_path=path, ori_shape=(8, 8), img_shape=(8, 8)) | (dict(sample_id=sample_id) if sample_id else {})
    found = SegDataSample(metainfo=meta)
    ids = torch.full((1, 8, 8), len(path) % 2)
    found.set_data({key: PixelData(data=ids) for key in ('pred_sem_seg', 'gt_sem_seg')})
    return found


@pytest.fixture
def visualizer(tmp_path):
    made = PathVisualizer(name=str(tmp_path), overlay_dir=str(tmp_path / 'shown'))
    made.dataset_meta = META
    return made


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*.png'))


@pytest.mark.parametrize('kind', ['predictions', 'overlays'])
def test_files_keep_the_paths_of_their_images(tmp_path, visualizer, kind):
    metric = tool('test').PredictionMetric(iou_metrics=['mIoU'], output_dir=str(tmp_path / 'shown'))
    metric.dataset_meta = META

    def write(found):
        if kind == 'predictions':
            metric.process({}, [found.to_dict()])
        else:
            visualizer.add_datasample('x', np.zeros((8, 8, 3), np.uint8), found, draw_gt=False, step=3)

    for name in ('a/001', 'b/001', 'b/deep/001', '001'):
        write(sample(f'/images/{name}.jpg', name))
        write(sample(f'/images/{name}.jpg', name))  # drawn in each validation
    assert files_in(tmp_path / 'shown') == ['001.png', 'a/001.png', 'b/001.png', 'b/deep/001.png']
    with pytest.raises(ValueError, match=r'001.png: expected one photograph|expected one image for .*001.png') as error:
        write(sample('/other/001.png'))  # of a pipeline that packs no sample_id
    assert '/images/001.jpg and /other/001.png' in str(error.value)


def test_an_inferencer_that_would_overwrite_an_overlay_is_stopped(tmp_path):
    made = PathVisualizer(name=str(tmp_path / 'vis'))
    made.dataset_meta = META
    draw = lambda path: made.add_datasample(  # noqa: E731
        Path(path).name, np.zeros((8, 8, 3), np.uint8), sample(path), out_file=str(tmp_path / Path(path).name)
    )
    draw('a/001.jpg'), draw('a/001.png')
    with pytest.raises(
        ValueError, match=r'expected one photograph, got a/001.jpg and b/001.jpg; .* use tools/predict.py'
    ):
        draw('b/001.jpg')
