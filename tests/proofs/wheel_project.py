"""Proof that the package serves a folder that has nothing of the repository: an empty one, in a new environment.

python tests/proofs/wheel_project.py ENVIRONMENT --requirements requirements.txt

Makes the virtual environment, if there is none, of this Python; installs the requirements and the wheel; then, in a
folder with the files of tests/outside/project and drawn images, trains both stages for a few steps, predicts, and
has mim train where openmim is installed. Ends with a table of what was done.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
NUM_TRAIN, NUM_VAL = 4, 2
COMMON = """train_dataloader.batch_size=2 train_dataloader.num_workers=0 train_dataloader.persistent_workers=False
    test_dataloader.num_workers=0 test_dataloader.persistent_workers=False train_cfg.max_iters=2
    default_hooks.logger.interval=1 default_hooks.checkpoint.interval=2"""
STAGE_1 = """val_dataloader.num_workers=0 val_dataloader.persistent_workers=False train_cfg.val_interval=2
    custom_hooks.0.end=1 custom_hooks.1.dataloader.num_workers=0 model.backbone.pretrained=False
    model.backbone.architecture.depth=3 model.backbone.frozen_layers=1
    model.attention_loss.layer_index=1 model.test_cfg.propagate_layers=2, model.test_cfg.scales=1.0,"""
STAGE_2 = 'model.backbone.pretrained=False'


def build_wheel(folder: Path) -> Path:
    """The wheel of the repository, below `folder`; built from a copy, for building leaves files behind."""
    source = folder / 'source'
    ignored = shutil.ignore_patterns('.*', 'build', 'data', 'tests', 'work_dirs', '*.egg-info')
    shutil.copytree(ROOT, source, ignore=ignored)
    pip = [sys.executable, '-m', 'pip', '--quiet', '--no-input', 'wheel', '--no-deps', '--no-build-isolation']
    subprocess.run([*pip, '-w', folder / 'wheels', source], check=True)
    (wheel,) = (folder / 'wheels').glob('*.whl')
    return wheel


def make_project(folder: Path) -> Path:
    """Somebody's folder: their data, their module, and configs that inherit from the package."""
    shutil.copytree(ROOT / 'tests/outside/project', folder, ignore=shutil.ignore_patterns('__pycache__'))
    command = f'import pathlib, draw_demo; draw_demo.draw_demo(pathlib.Path("data"), {NUM_TRAIN}, {NUM_VAL}, size=64)'
    run(folder, f'{ROOT}{os.pathsep}{ROOT / "tools"}', '-c', command)
    return folder


def environment(path: Path | str) -> dict[str, str]:
    return dict(os.environ, PYTHONPATH=str(path))


def run(folder: Path, path: Path | str, *arguments: str, python: str = sys.executable, errors=subprocess.STDOUT) -> str:
    """What a Python prints that runs in `folder` and looks for modules in `path` first."""
    command = [python, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment(path), stdout=subprocess.PIPE, stderr=errors, text=True)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)}: exit code {done.returncode}\n{done.stdout[-4000:]}')
    return done.stdout


def train_stage_1(project: Path, path: Path | str, **options: str) -> str:
    changes = ['--cfg-options', *COMMON.split(), *STAGE_1.split()]
    return run(project, path, '-m', 'aream_mm', 'train', 'stage_1.py', *changes, **options)


def train_stage_2(project: Path, path: Path | str, **options: str) -> str:
    changes = ['--cfg-options', *COMMON.split(), STAGE_2]
    return run(project, path, '-m', 'aream_mm', 'train', 'stage_2.py', *changes, **options)


def predict(project: Path, path: Path | str, **options: str) -> str:
    arguments = ['data/images', 'stage_2.py', 'work_dirs/stage_2/iter_2.pth', '--out', 'predicted']
    return run(project, path, '-m', 'aream_mm', 'predict', *arguments, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('environment', type=Path, help='folder of the virtual environment')
    parser.add_argument('--requirements', type=Path, help='file of what a new one gets before the wheel')
    args = parser.parse_args()
    python = str(args.environment.resolve() / 'bin/python')
    if not Path(python).exists():
        subprocess.run([sys.executable, '-m', 'venv', args.environment], check=True)
        subprocess.run([python, '-m', 'pip', '--quiet', 'install', '-r', args.requirements], check=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        install = [python, '-m', 'pip', '--quiet', 'install', '--force-reinstall', '--no-deps', build_wheel(folder)]
        subprocess.run(install, check=True)
        print(run(folder, '', '-m', 'aream_mm.env', python=python))
        project = make_project(folder / 'project')
        train_stage_1(project, '', python=python)
        masks = len(list((project / 'work_dirs/stage_1/pseudo_masks').glob('*.png')))
        print(f'stage 1: {masks} pseudo masks of {NUM_TRAIN} images')
        train_stage_2(project, '', python=python)
        predict(project, '', python=python)
        print(f'stage 2: {len(list((project / "predicted/masks").glob("*.png")))} predicted masks')
        mim = Path(python).with_name('mim')
        if mim.exists():
            changes = ['--cfg-options', *COMMON.split(), *STAGE_1.split()]
            command = [mim, 'train', 'aream_mm', 'stage_1.py', '--gpus', '0', '--work-dir', 'by_mim', *changes]
            subprocess.run(command, cwd=project, env=environment('.'), check=True, stdout=subprocess.DEVNULL)
            print(f'mim train: {len(list((project / "by_mim").glob("*.pth")))} checkpoints')


if __name__ == '__main__':
    main()
