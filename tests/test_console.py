"""What the terminal shows of a run, and what the log file keeps."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from console import QuietRunner
from test_engine import run_config
from toy_voc import make_voc

from aream_mm import progress as module
from aream_mm.progress import progress

ROOT = Path(__file__).parents[1]
TOY = [
    'classes=("background","cat","dog")',
    'max_iters=4',
    'model.backbone.pretrained=False',
    'model.backbone.architecture.depth=2',
    'model.backbone.frozen_layers=1',
    'model.test_cfg.propagate_layers=(0,)',
    'model.attention_loss=None',
    'train_dataloader.batch_size=2',
    'crop_size=56',
]


@pytest.fixture(scope='module')
def run(toy_folders, tmp_path_factory):
    """What `tools/train.py` on a config with frozen layers printed, and its log file."""
    work = tmp_path_factory.mktemp('console')
    command = [sys.executable, 'tools/train.py', 'configs/own_photographs.py', '--work-dir', str(work)]
    command += ['--cfg-options', f'data_root={toy_folders["own"]}', *TOY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (log,) = work.glob('*/*.log')
    return done, log


def test_before_the_first_step_stand_warnings_of_the_data_and_what_is_trained(run):
    done, log = run
    before = done.stdout.split('Saving checkpoint')[0].splitlines()
    assert not done.stderr and len(before) < 15
    start = before.index(next(line for line in before if 'Training CAMSegmentor on AttentionViT' in line))
    assert [line for line in before[:start] if 'dog is in every image' not in line and 'tags.csv' not in line] == []
    told = '\n'.join(before[start:])
    assert '6 photographs of 3 classes: background, cat, dog' in told and '4 steps in batches of 2' in told
    assert f'results: {log.parents[1]}' in told and f'full log: {log}' in told


def test_the_log_file_keeps_all_that_the_terminal_does_not_show(run):
    done, log = run
    kept = log.read_text()
    for text in ('System environment:', 'Config:', 'paramwise_options', 'requires_grad=False', 'UserWarning'):
        assert text in kept and text not in done.stdout
    assert 'Training CAMSegmentor' in kept and 'dog is in every image' in kept


def test_groups_of_weights_are_plain_dicts_as_torch_compile_wants_them(tmp_path):
    cfg = run_config(make_voc(tmp_path / 'voc'), tmp_path / 'work')
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys={'backbone': dict(lr_mult=0.1)})
    runner = QuietRunner.from_cfg(cfg)
    groups = runner.build_optim_wrapper(cfg.optim_wrapper).optimizer.param_groups
    assert {type(group) for group in groups} == {dict} and len({group['lr'] for group in groups}) == 2


def test_a_loop_in_a_file_or_pipe_tells_of_itself_now_and_then(monkeypatch, capsys):
    seconds = iter(range(0, 1000, 8))
    monkeypatch.setattr(module.time, 'monotonic', lambda: next(seconds))
    assert list(progress(iter('abcdefghij'), 10)) == list('abcdefghij')
    assert capsys.readouterr().out == '4 of 10, 0:00:48 left\n8 of 10, 0:00:16 left\n'


def test_at_a_terminal_a_loop_has_a_bar(monkeypatch):
    monkeypatch.setattr('sys.stdout.isatty', lambda: True)
    monkeypatch.setattr(module, 'track_iter_progress', lambda task: f'a bar of {task[1]}')
    assert progress([1, 2, 3]) == 'a bar of 3'


TOOLS = [path for path in sorted((ROOT / 'tools').rglob('*.py')) if '__main__' in path.read_text()]


@pytest.mark.parametrize('tool', TOOLS, ids=lambda tool: tool.stem)
def test_a_tool_imports_first_what_keeps_libraries_quiet(tool):
    names = []
    for node in ast.walk(ast.parse(tool.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names += [node.module] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
    others = [name for name in names if name.partition('.')[0] not in sys.stdlib_module_names]
    assert others[0] == 'aream_mm.quiet' or not any(name.startswith(('mm', 'aream_mm')) for name in others)


def test_the_help_of_the_tools_is_all_that_they_print():
    """In one process, since another one for each would import everything again."""
    script = """if True:
        import runpy, sys
        for tool in sys.argv[1:]:
            sys.argv, sys.path[0] = [tool, '--help'], tool.rpartition('/')[0]
            print('TOOL', flush=True)
            try:
                runpy.run_path(tool, run_name='__main__')
            except SystemExit as end:
                assert not end.code, tool
    """
    tools = [str(tool) for tool in TOOLS if 'ArgumentParser' in tool.read_text()]
    done = subprocess.run([sys.executable, '-c', script, *tools], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    helps = done.stdout.split('TOOL\n')[1:]
    assert len(helps) == len(tools) > 15 and all(text.startswith('usage: ') for text in helps)
    assert 'Could not import' not in done.stdout


def test_a_half_written_cache_of_the_layout_of_configs_stops_no_tool(tmp_path):
    """Another GPU's process may be writing it at this moment, or a full disk kept it from being written."""
    environment = {**os.environ, 'XDG_CACHE_HOME': str(tmp_path)}

    def run(code):
        return subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, cwd=ROOT)

    assert run('import yapf').returncode == 0
    for cache in (caches := list(tmp_path.rglob('*.pickle'))):
        cache.write_bytes(b'')
    assert caches and 'EOFError' in run('import yapf').stderr
    done = run('import aream_mm; from yapf.yapflib.yapf_api import FormatCode; print(*FormatCode("a=1"))')
    assert done.stdout.startswith('a = 1'), done.stderr
