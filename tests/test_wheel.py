"""The wheel, from a folder that has nothing of the repository: configs to inherit, tools to run, what they measured."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from draw_demo import draw_demo

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / 'tests/outside/project'
INDEX = yaml.safe_load((ROOT / 'configs/metafile.yml').read_text())
SMALL = """train_dataloader.batch_size=2 train_dataloader.num_workers=0 train_dataloader.persistent_workers=False
    val_dataloader.num_workers=0 val_dataloader.persistent_workers=False test_dataloader.num_workers=0
    test_dataloader.persistent_workers=False train_cfg.max_iters=2 train_cfg.val_interval=2 default_hooks.logger.interval=1
    default_hooks.checkpoint.interval=2"""
STAGE_1 = """custom_hooks.0.end=1 custom_hooks.1.dataloader.num_workers=0 model.backbone.cnn.pretrained=False
    model.backbone.vit.pretrained=False model.backbone.vit.architecture.depth=3 model.backbone.vit.frozen_layers=1
    model.attention_loss.layer_index=1 model.test_cfg.propagate_layers=2, model.test_cfg.scales=1.0,"""


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """A folder with the package as pip installs it from a wheel."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns('.*', 'data', 'work_dirs', 'tests', 'build', '*.egg-info'))
    pip = [sys.executable, '-m', 'pip', '--quiet', '--no-input']
    subprocess.run([*pip, 'wheel', '--no-deps', '--no-build-isolation', '-w', folder / 'wheels', source], check=True)
    (wheel,) = (folder / 'wheels').glob('*.whl')
    subprocess.run([*pip, 'install', '--no-deps', '--target', folder / 'site', wheel], check=True)
    return folder / 'site'


@pytest.fixture
def project(tmp_path):
    """Somebody's folder: their data, their module, configs that inherit from the package."""
    shutil.copytree(PROJECT, tmp_path / 'project', ignore=shutil.ignore_patterns('__pycache__'))
    draw_demo(tmp_path / 'project/data', num_train=4, num_val=2, size=64)
    return tmp_path / 'project'


def python(folder, site, *arguments):
    """What Python prints that runs in `folder`, and finds the package as it was installed."""
    environment = dict(os.environ, PYTHONPATH=str(site))
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_a_project_of_ones_own_inherits_a_config_and_brings_a_data_set(installed, project):
    options = [*SMALL.split(), *STAGE_1.split()]
    printed = python(project, installed, '-m', 'aream_mm', 'train', 'stage_1.py', '--cfg-options', *options)
    print(printed)
    assert len(list((project / 'work_dirs/stage_1/pseudo_masks').glob('*.png'))) == 4
