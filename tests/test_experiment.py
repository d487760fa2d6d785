"""The experiment: which trainings it makes, what it measures of each, and what it says in the end."""

import json
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from threading import Event

import comparison
import experiment
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from options import load_config
from PIL import Image
from test_engine import LOAD, PACK, PAR, run_config
from test_run import run
from test_stage_2_masks import STEPS, stage_2_config
from toy_voc import ANIMALS, make_voc

from aream_mm.evaluation import CAMMetric
from aream_mm.registry import MODELS

WAYS = {'all': (None, 1), 'layer 2': ((2,), 2), 'none': ((), 1)}  # in the order that Config.dump writes them


class Here:
    """A pool without processes of its own."""

    def __init__(self, *_, **__):
        self.submitted = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """A small experiment: a start of one epoch, and rows of two steps each."""
    folder = tmp_path_factory.mktemp('experiment')
    cfg = run_config(make_voc(folder / 'voc', train=6), folder / 'unused', **{'train_cfg.max_epochs': 1})
    cfg.val_dataloader = deepcopy(cfg.custom_hooks[1].dataloader)
    cfg.val_dataloader.dataset.pipeline = [LOAD, dict(type='LoadAnnotations'), PACK]
    cfg.update(pseudo_mask_dataloader=cfg.custom_hooks[1].dataloader, custom_hooks=[], log_level='INFO')
    cfg.update(seeds=[0, 1], images=3, propagations=WAYS, refine=PAR, baselines=['no AReAM', 'AReAM, k = 2'])
    stage_2_config(folder, folder / 'unused', custom_hooks=[]).dump(folder / 'stage_2.py')
    cfg.stage_2 = str(folder / 'stage_2.py')
    cfg.start = {'model.attention_loss': None}
    cfg.rows = {'no AReAM': {'model.attention_loss': None}, 'AReAM, k = 2': {'model.attention_loss.layer_index': 2}}
    cfg.dump(folder / 'config.py')
    return folder / 'config.py'


def conduct(monkeypatch, config, work_dir, *arguments):
    """Run the experiment in this process; the (row, seed) of each training that it makes."""
    made, train_and_measure = [], comparison.train_and_measure
    threads = torch.get_num_threads()

    def recorded(*arguments):
        made.append(arguments[3:5])
        train_and_measure(*arguments)

    monkeypatch.setattr(comparison, 'ProcessPoolExecutor', Here)
    monkeypatch.setattr(comparison, 'train_and_measure', recorded)
    monkeypatch.setattr(sys, 'argv', ['experiment.py', str(config), '--work-dir', str(work_dir), *arguments])
    experiment.main()
    torch.set_num_threads(threads)
    return made


@pytest.fixture(scope='module')
def conducted(config):
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = conduct(monkeypatch, config, config.parent / 'work')
    return config.parent / 'work', made


def test_each_row_is_trained_once_a_seed_from_the_start_of_that_seed(conducted):
    work_dir, made = conducted
    rows = ('no AReAM', 'AReAM, k = 2')
    assert sorted(made) == sorted((row, seed) for row in ('start', *rows) for seed in (0, 1))
    for seed in (0, 1):
        start = work_dir / f'start/{seed}/epoch_1.pth'
        for folder in ('no_AReAM', 'AReAM_k_2'):
            log = next((work_dir / folder / str(seed)).glob('*/*.log')).read_text()
            assert f'Load checkpoint from {start}' in log and f'seed={seed}' in log
            assert ('loss_aream' in log) == (folder != 'no_AReAM')


def test_the_figures_are_those_of_the_segmentor_itself(conducted, config):
    work_dir, _ = conducted
    measured = json.loads((work_dir / 'AReAM_k_2/1/figures.json').read_text())['propagations']
    cfg = load_config(config)
    init_default_scope('mmseg')
    assert list(measured) == list(WAYS)
    for name, (layers, steps) in WAYS.items():
        settings = dict(cfg.model.get('test_cfg', {}), propagate_layers=layers, propagate_steps=steps)
        model = MODELS.build(dict(cfg.model, test_cfg=settings)).eval()
        load_checkpoint(model, str(work_dir / 'AReAM_k_2/1/epoch_1.pth'))
        dataset = Runner.build_dataloader(cfg.val_dataloader).dataset
        chosen = dataset.get_subset([0, 2, 5])  # three of six, from the first to the last
        metric = CAMMetric()
        metric.dataset_meta = dataset.metainfo
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
            for batch in Runner.build_dataloader({**cfg.val_dataloader, 'dataset': chosen}):
                metric.process({}, [sample.to_dict() for sample in model.test_step(batch)])
        expected = metric.evaluate(3)
        assert measured[name] == pytest.approx(expected, abs=0.5)
    assert len({figures['cam/mIoU_best'] for figures in measured.values()}) == 3


def test_stage_2_trains_on_masks_made_as_the_row_has_chosen(conducted, config, monkeypatch):
    work_dir, _ = conducted
    folder = work_dir / 'no_AReAM/0'
    arguments = ['--rows', 'no AReAM', '--seeds', '0', '--stage-2', 'no AReAM']
    conduct(monkeypatch, config, work_dir, *arguments, '--stage-2-options', 'optim_wrapper.optimizer.lr=0.02')
    chosen = json.loads((folder / 'figures.json').read_text())['pseudo_masks']
    manifest = json.loads((folder / 'pseudo_masks/manifest.json').read_text())
    assert chosen['settings'].items() <= manifest['settings'].items()
    assert manifest['settings']['refine']['type'] == PAR['type']
    assert manifest['checkpoint'] == str(folder / 'epoch_1.pth')

    metric = IoUMetric(iou_metrics=['mIoU'])  # of the files of the measured images
    metric.dataset_meta = dict(classes=ANIMALS)
    dataset = Runner.build_dataloader(load_config(config).val_dataloader).dataset
    for i in (0, 2, 5):
        sample = dataset[i]['data_samples']
        mask = np.array(Image.open(folder / f'pseudo_masks/{sample.sample_id}.png'))
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(mask)[None].long())
        metric.process({}, [sample.to_dict()])
    assert metric.evaluate(3)['mIoU'] == pytest.approx(chosen['mIoU'], abs=0.5)

    measured = json.loads((folder / 'stage_2.json').read_text())['mIoU']
    assert json.loads((work_dir / 'results.json').read_text())['no AReAM']['0']['stage_2']['mIoU'] == measured
    assert cells_of(work_dir, 'Masks:', 'no AReAM')[-1] == f'{measured:.1f}'
    assert cells_of(work_dir, "Difference to 'no AReAM'", 'no AReAM')[-1] == '0.0'
    assert cells_of(work_dir, "Difference to 'no AReAM'", 'AReAM, k = 2')[-1] == ''
    seg = load_config(next((folder / 'stage_2').glob('*.py')))
    assert seg.train_dataloader.dataset.mask_dir == str(folder / 'pseudo_masks')
    assert seg.optim_wrapper.optimizer.lr == 0.02
    seg.update(load_from=str(folder / f'stage_2/iter_{STEPS}.pth'), test_dataloader=seg.val_dataloader)
    seg.update(test_evaluator=seg.val_evaluator, test_cfg=dict(type='TestLoop'), experiment_name='measured_again')
    assert Runner.from_cfg(seg).test()['mIoU'] == pytest.approx(measured)


def cells_of(work_dir, title, row):
    """The cells of a row in the table that follows the title."""
    lines = (work_dir / 'results.md').read_text().split(title)[1].splitlines()
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines if line.startswith('|')]
    return next(cells for name, *cells in rows if name == row)


def test_the_report_has_means_and_deviations_of_all_seeds_and_a_plot(conducted):
    work_dir, _ = conducted
    results = json.loads((work_dir / 'results.json').read_text())

    def figures(row, threshold):
        each = [results[row][seed]['propagations'] for seed in '01']
        return {way: [one[way][f'cam/mIoU_{threshold}'] for one in each] for way in WAYS}

    def cell(one, other):
        return f'{(one + other) / 2:.1f} ± {abs(one - other) / 2**0.5:.1f}'

    fixed = [cell(*values) for values in figures('no AReAM', 'fixed').values()]
    assert cells_of(work_dir, "The config's threshold", 'no AReAM') == ['2', *fixed]
    rows = figures('AReAM, k = 2', 'best'), figures('no AReAM', 'best')
    gains = [cell(*np.subtract(one, other)) for one, other in zip(*(row.values() for row in rows), strict=True)]
    assert cells_of(work_dir, "Difference to 'no AReAM'", 'AReAM, k = 2')[1:-2] == gains
    for row in ('no AReAM', 'AReAM, k = 2'):
        assert cells_of(work_dir, f'Difference to {row!r}', row)[:-1] == ['2', *['0.0 ± 0.0'] * 4]
    masks = [results['no AReAM'][seed]['pseudo_masks']['mIoU'] for seed in '01']
    assert cells_of(work_dir, 'Masks:', 'no AReAM')[3] == cell(*masks)
    assert np.array(Image.open(work_dir / 'results.png')).std() > 10


def test_what_is_there_is_not_done_again_and_seeds_can_be_added(conducted, config, monkeypatch):
    work_dir, _ = conducted
    (work_dir / 'no_AReAM/1/figures.json').unlink()
    assert conduct(monkeypatch, config, work_dir) == [('no AReAM', 1)]
    made = conduct(monkeypatch, config, work_dir, '--rows', 'no AReAM', '--seeds', '0', '1', '2')
    assert made == [('start', 2), ('no AReAM', 2)]
    assert list(json.loads((work_dir / 'results.json').read_text())['no AReAM']) == ['0', '1', '2']


def test_a_row_that_the_config_does_not_have_is_refused(config, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        conduct(monkeypatch, config, config.parent / 'refused', '--rows', 'AReAM')
    assert "expected rows of ['AReAM, k = 2', 'no AReAM'], got ['AReAM']" in capsys.readouterr().err


def test_a_training_that_fails_ends_the_experiment_before_the_next_begins(config, monkeypatch):
    begun, cancelled = [], Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait=True, **options):
            super().shutdown(wait=False, **options)
            cancelled.set()
            super().shutdown(wait)

    def fail(*arguments):
        if begun:  # taken up before the failure was heard of
            cancelled.wait(60)
        begun.append(arguments[4])
        raise ValueError('no such folder')

    monkeypatch.setattr(comparison, 'ThreadPoolExecutor', Pool)
    monkeypatch.setattr(comparison, 'in_a_new_process', lambda train, *arguments: train(*arguments))
    monkeypatch.setattr(comparison, 'train_and_measure', fail)
    command = ['experiment.py', str(config), '--work-dir', str(config.parent / 'failed'), '--seeds', *'01234']
    monkeypatch.setattr(sys, 'argv', command)
    threads = torch.get_num_threads()
    with pytest.raises(ValueError, match='no such folder'):
        experiment.main()
    torch.set_num_threads(threads)
    assert begun in ([0], [0, 1])


def test_the_command_trains_in_processes_of_its_own(config):
    work_dir = config.parent / 'command'
    told = run('tools/experiment.py', config, '--work-dir', work_dir, '--rows', 'no AReAM', '--seeds', 3)
    assert '| no AReAM' in told
    assert (work_dir / 'no_AReAM/3/figures.json').is_file()
