"""The table: its plan, an interrupted run of the whole chain on drawn images, its page, and what it says it takes."""

import contextlib
import json
import runpy
import signal
import subprocess
import sys
import time
import traceback
from copy import deepcopy
from pathlib import Path

import experiment
import pytest
import table
import table_estimate
from options import load_config
from test_affinity_net import NET
from test_engine import LOAD, PACK, run_config
from test_stage_2_masks import stage_2_config
from toy_voc import make_voc

ROOT = Path(__file__).parents[1]
SIZE = dict(train=6, val=3)
CHECKPOINTS = dict(type='aream_mm.SafeCheckpointHook', interval=1)
CRF = dict(type='aream_mm.DenseCRF', num_iters=2, bilateral_sxy=20, workers=1)
STEPS = ['train', 'seeds', 'masks', 'affinity', 'walk', 'one', 'one, val', 'other', 'other, val']


def stage_1(folder, **changes):
    cfg = run_config(folder / 'voc', folder / 'unused', **changes)
    cfg.val_dataloader = deepcopy(cfg.custom_hooks[-1].dataloader)
    cfg.val_dataloader.dataset.pipeline = [LOAD, dict(type='LoadAnnotations'), PACK]
    cfg.update(test_dataloader=cfg.val_dataloader, val_cfg=dict(type='ValLoop'), test_cfg=dict(type='TestLoop'))
    cfg.val_evaluator = cfg.test_evaluator = dict(type='aream_mm.CAMMetric')
    cfg.update(data_root=str(folder / 'voc'), log_level='INFO', default_hooks=dict(checkpoint=CHECKPOINTS))
    return cfg


def dump(cfg, path, root):
    """With the data folder as a variable, as the configs here have it."""
    cfg.dump(path)
    text = path.read_text().replace(f"'{root}'", 'data_root').replace(f"'{root}/", "data_root + '/")
    path.write_text(f'data_root = {str(root)!r}\n{text}')


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """An experiment of three rows, all refiners and two decoders, on six classes of a VOC in miniature."""
    folder = tmp_path_factory.mktemp('table')
    make_voc(folder / 'voc', **SIZE)
    dump(stage_1(folder), folder / 'aream.py', folder / 'voc')
    seg = stage_2_config(folder, folder / 'unused', custom_hooks=[], data_root=str(folder / 'voc'))
    seg.update(test_dataloader=seg.val_dataloader, test_evaluator=seg.val_evaluator, test_cfg=dict(type='TestLoop'))
    dump(seg, folder / 'seg.py', folder / 'voc')
    affinity = deepcopy(seg)
    affinity.merge_from_dict({'model': dict(_delete_=True, **NET)})
    affinity.update(
        {f'{split}_{part}': None for split in ('val', 'test') for part in ('dataloader', 'cfg', 'evaluator')}
    )
    dump(affinity, folder / 'affinity.py', folder / 'voc')
    settings = dict(
        data_root=str(folder / 'voc'),
        seeds=[0],
        rows={
            'baseline': {'config': str(folder / 'aream.py'), 'paper': 61.7, 'model.attention_loss': None},
            'AReAM': {'config': str(folder / 'aream.py'), 'paper': 67.93},
            'other': {'config': str(folder / 'aream.py')},
        },
        refiners={
            'none': None,
            'PAR': dict(refine=dict(type='aream_mm.PAR')),
            'CRF': dict(refine=CRF),
            'PSA': dict(refine=dict(type='aream_mm.RandomWalk', steps=2), refine_scale=1),
        },
        affinity=dict(config=str(folder / 'affinity.py')),
        band=dict(band=(0.3, 0.6)),
        stage_2_masks='PSA',
        decoders={
            'one': {'config': str(folder / 'seg.py')},
            'other': {'config': str(folder / 'seg.py'), 'train_cfg.max_iters': 2},
        },
        tta=False,
        images=dict(trainaug=600, train=40, val=20),
        image_size=(96, 80),
    )
    settings['rows']['baseline']['custom_hooks'] = []
    settings['rows']['baseline']['pseudo_mask_dataloader'] = stage_1(folder).custom_hooks[-1].dataloader.to_dict()
    (folder / 'experiment.py').write_text('\n'.join(f'{key} = {value!r}' for key, value in settings.items()))
    return folder / 'experiment.py'


class Tools:
    """The tools in this process. The first training is cut short after its first epoch."""

    def __init__(self, monkeypatch, cut=False):
        self.monkeypatch, self.cut, self.steps, self.measured = monkeypatch, cut, [], 0
        monkeypatch.setattr(table, 'run_command', self)
        monkeypatch.setattr(table_estimate, 'run_command', self)

    def __call__(self, command, log, group=False):
        tool, *arguments = map(str, command[1:])
        measuring = tool.endswith('table_estimate.py')
        self.measured += measuring
        if not measuring:
            self.steps.append(log.parent.relative_to(log.parents[3]).as_posix())
        cut = self.cut and not measuring
        if cut:
            self.cut, arguments = False, [*arguments, '--cfg-options', 'train_cfg.max_epochs=1']
        self.monkeypatch.setattr(sys, 'argv', [tool, *arguments])
        with log.open('a') as output, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                runpy.run_path(tool, run_name='__main__')
            except Exception:
                traceback.print_exc()
                return 1
        return -signal.SIGKILL if cut else 0


def conduct(monkeypatch, config, *arguments, work='work'):
    command = ['experiment.py', str(config), '--work-dir', str(config.parent / work), *arguments]
    monkeypatch.setattr(sys, 'argv', command)
    experiment.main()


@pytest.fixture(scope='module')
def conducted(config):
    """Work dir, the steps of a run whose first training was killed, its page, the steps of the same command again."""
    work = config.parent / 'work'
    with pytest.MonkeyPatch.context() as monkeypatch:
        first = Tools(monkeypatch, cut=True)
        with pytest.raises(SystemExit, match='1'):
            conduct(monkeypatch, config, '--rows', 'baseline', 'AReAM')
        page = (work / 'results.html').read_text()
        second = Tools(monkeypatch)
        conduct(monkeypatch, config, '--rows', 'baseline', 'AReAM')
    return work, first, page, second


def rows_of(page):
    return [line.replace('</td>', '').split('<td')[1:] for line in page.splitlines() if '<tr><td>' in line]


def test_what_is_done_is_not_done_again_and_what_was_cut_short_goes_on(conducted):
    work, first, _, second = conducted
    folders = [table.slug(name) for name in STEPS]
    assert first.steps == ['baseline/0/train', *(f'AReAM/0/{name}' for name in folders)]
    assert second.steps == [f'baseline/0/{name}' for name in folders]
    assert (first.measured, second.measured) == (5, 0)
    assert ', 1 of them are done' in (work / 'baseline/0/train/output.log').read_text()
    assert (work / 'baseline/0/train/epoch_2.pth').is_file()


def test_the_page_has_every_row_and_says_what_was_not_run(conducted):
    work, _, before, _ = conducted
    baseline, aream, other = rows_of(before)
    assert [row[0] for row in (baseline, aream, other)] == ['>baseline', '>AReAM', '>other']
    assert all('not run' in cell for cell in (*baseline[1:2], *baseline[3:9], *other[1:2], *other[3:]))
    assert '61.7' in baseline[2] and '67.93' in aream[2] and not any('not run' in cell for cell in aream)
    assert 'Not asked for: other.' in before and 'Failed: baseline, seed 0, train.' in before
    assert '9 of 18 steps are not done:' in before and 'baseline, seed 0: train, seeds, masks,' in before
    baseline, aream, other = rows_of((work / 'results.html').read_text())
    assert not any('not run' in cell for cell in (*baseline, *aream)) and 'not run' in other[1]
    figures = json.loads((work / 'results.json').read_text())['rows']
    assert figures['AReAM']['paper'] == 67.93 and figures['AReAM']['minutes'] > 0
    manifest = json.loads((work / 'AReAM/0/walk/PSA/manifest.json').read_text())
    assert figures['AReAM']['figures']['masks: PSA, train'] == {'0': manifest['mIoU']}
    assert f'{manifest["mIoU"]:.1f}' in aream[6]


def test_each_step_goes_on_from_those_before_it(conducted):
    work, *_ = conducted
    folder = work / 'AReAM/0'
    threshold = json.loads((folder / 'seeds/result.json').read_text())['figures']['threshold']
    kinds = dict(none=None, PAR='aream_mm.PAR', CRF='aream_mm.DenseCRF', PSA='aream_mm.RandomWalk')
    for name, kind in kinds.items():
        step = 'walk' if name == 'PSA' else 'masks'
        manifest = json.loads((folder / step / name / 'manifest.json').read_text())
        assert manifest['settings']['background'] == threshold and manifest['images'] == SIZE['train']
        assert (manifest['settings']['refine'] or {}).get('type') == kind
        assert Path(manifest['checkpoint']).parent == folder / 'train'
    walked = json.loads((folder / 'walk/PSA/manifest.json').read_text())['settings']['refine']['checkpoint']
    assert Path(walked).parent == folder / 'affinity'
    affinity, seg = (load_config(folder / name / 'config.py') for name in ('affinity', 'one'))
    assert affinity.train_dataloader.dataset.mask_dir == str(folder / 'masks/band')
    assert seg.train_dataloader.dataset.mask_dir == str(folder / 'walk/PSA')
    assert seg.val_dataloader is None  # nothing is chosen on `val`
    assert json.loads((folder / 'one_val/result.json').read_text())['checkpoint'] == str(folder / 'one/iter_4.pth')


def test_a_change_of_settings_is_refused_and_seeds_can_be_added(conducted, config, monkeypatch):
    option = 'rows.AReAM.model.head.kernel_size=1'
    with pytest.raises(ValueError, match='AReAM/0/train/result.json: expected the settings that the experiment has'):
        conduct(monkeypatch, config, '--rows', 'AReAM', '--cfg-options', option)
    conduct(monkeypatch, config, '--rows', 'AReAM')
    assert '61.7' in rows_of((conducted[0] / 'results.html').read_text())[0][2]
    assert json.loads((conducted[0] / 'results.json').read_text())['rows']['baseline']['steps']['done'] == 9
    planned = table.Table(load_config(config), conducted[0], ['AReAM'], [0, 1])
    assert [planned.result(step) is not None for step in planned.steps] == [True] * 9 + [False] * 9


def test_options_that_would_have_no_effect_are_refused(config, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        conduct(monkeypatch, config, '--processes', '2')
    assert '--processes: would have no effect' in capsys.readouterr().err


def test_the_estimate_alone_needs_no_data(config, monkeypatch, capsys):
    tools = Tools(monkeypatch)
    conduct(
        monkeypatch, config, '--estimate', '--rows', 'AReAM', '--cfg-options', 'data_root=/nowhere', work='estimate'
    )
    told = capsys.readouterr().out
    assert tools.steps == [] and tools.measured == 4
    assert '| AReAM' in told and '| all' in told
    found = json.loads((config.parent / 'estimate/estimate.json').read_text())
    assert len(found['steps']) == 9
    assert all(step['seconds'] > 0 and step['memory'] > 0 for step in found['steps'].values())
    # 40 images in batches of two, two epochs of which one is the warm-up, each with a validation.
    one, train = found['measured']['AReAM'], found['steps']['AReAM, seed 0, train']['seconds']
    compute = 20 * sum(one['steps']) + 2 * 40 * one['load'] + 2 * one['save']
    assert train == pytest.approx(one['start'] + compute + 80 * (one['predict'] + one['predict_load']))


def test_the_time_that_remains_is_corrected_by_what_was_measured(config):
    planned = table.Table(load_config(config), Path('nowhere'), ['AReAM'], [0, 1])
    costs = {step: table_estimate.Cost(10.0, 1, 1) for step in planned.steps}
    estimate, (train, *_) = table_estimate.Estimate(costs, 'cpu'), planned.steps
    assert estimate.remaining({}) == 180
    assert estimate.remaining({train: 20.0}) == 340  # all are thought to be twice as slow
    seeds = next(step for step in planned.steps if step.kind == 'seeds')
    assert estimate.remaining({train: 20.0, seeds: 40.0}) == 20 + 40 + 14 * 30  # the other training, the other seeds


def test_the_papers_table_has_all_its_steps():
    cfg = load_config(ROOT / 'configs/experiment_voc.py')
    planned = table.Table(cfg, Path('nowhere'), list(cfg.rows), [0, 1, 2], gpus=4)
    assert len(planned.steps) == len(set(planned.steps)) == 3 * 5 * 9
    assert len({planned.settings(step) for step in planned.steps}) == len(planned.steps)
    train = planned.steps[0]
    made, own = planned.made(train), planned.base(train.kind, train.row, None)
    assert made.cfg.train_dataloader.batch_size * 4 == own.train_dataloader.batch_size
    command = planned.command(train, made)
    assert command[1:3] == ['-m', 'torch.distributed.run'] and command[-2:] == ['--launcher', 'pytorch']


@pytest.mark.skipif(sys.platform != 'linux', reason='other systems do not tell a child of the end of its parent')
def test_a_driver_that_is_killed_takes_its_child_along(tmp_path):
    child = 'import os, time; print(os.getpid(), flush=True); time.sleep(100)'
    program = 'import sys; from pathlib import Path; from children import run_command\n'
    program += f'run_command([sys.executable, "-c", {child!r}], Path({str(tmp_path / "log")!r}))'
    driver = subprocess.Popen([sys.executable, '-c', program], cwd=ROOT / 'tools')
    end = time.time() + 60
    while not (tmp_path / 'log').is_file() or not (text := (tmp_path / 'log').read_text()).endswith('\n'):
        assert time.time() < end
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    while Path('/proc', text.strip(), 'cmdline').is_file() and time.time() < end:
        if not Path('/proc', text.strip(), 'cmdline').read_bytes():
            break  # a zombie
        time.sleep(0.05)
    else:
        assert not Path('/proc', text.strip()).exists()
