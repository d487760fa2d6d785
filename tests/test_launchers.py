"""The launch scripts: arguments are handed through, and an error of one process ends all."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from draw_demo import draw_demo
from launcher import join_processes_without_gpu
from mmengine.config import Config

ROOT = Path(__file__).parents[1]
CONFIG = 'configs/demo/aream_demo.py'
SOON = 300  # seconds; gloo and torchrun wait for half an hour


def start(*command, **environment):
    """Start a script of the repository in this environment, activated; what it prints comes from `finish`."""
    activated = dict(PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    return subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env={**os.environ, **activated, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    """(exit code, what was printed) of a process that has to end soon."""
    try:
        printed = process.communicate(timeout=SOON)[0]
    finally:
        process.kill()
    return process.returncode, printed


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return str(server.getsockname()[1])


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Folder of a run of the demo config on two processes, its options, and what it printed."""
    folder = tmp_path_factory.mktemp('trained')
    draw_demo(folder / 'drawn', num_train=8, num_val=4, size=64)
    options = [f'data_root={folder}/drawn', 'train_dataloader.batch_size=2', 'train_dataloader.num_workers=0']
    options += ['train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0']
    options += ['val_dataloader.persistent_workers=False', 'test_dataloader.persistent_workers=False']
    options += ['test_dataloader.num_workers=0', 'test_dataloader.dataset.dataset.ann_file=val.txt']
    options += ['train_cfg.max_iters=4', 'train_cfg.val_interval=4', 'model.backbone.cnn.pretrained=False']
    options += ['model.backbone.vit.stem.pretrained=False']
    options += ['custom_hooks.0.end=2', 'custom_hooks.1.dataloader.num_workers=0', 'default_hooks.logger.interval=1']
    command = ('tools/dist_train.sh', CONFIG, 2, '--work-dir', folder / 'a work dir', '--cfg-options', *options)
    code, printed = finish(start(*command, PORT=free_port()))
    assert code == 0, printed[-4000:]
    return folder, options, printed


def test_two_processes_train_without_a_gpu(trained):
    folder, _, printed = trained
    assert 'on each of 2 processes' in printed
    assert printed.count('Iter(train)') == 4 and 'loss_aream' in printed
    assert (folder / 'a work dir/iter_4.pth').is_file()
    assert len(list((folder / 'a work dir/pseudo_masks').glob('*.png'))) == 8


def test_a_process_without_a_gpu_leaves_the_group_before_python_ends():
    program = """if True:
        import atexit
        import torch.distributed as dist
        from mmengine.config import Config
        from launcher import join_processes_without_gpu
        atexit.register(lambda: print('in a group at the end:', dist.is_initialized()))
        join_processes_without_gpu(Config(dict(launcher='pytorch')))
        print('in a group:', dist.is_initialized())
    """
    group = dict(RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
    code, printed = finish(start(sys.executable, '-c', program, **group, PYTHONPATH=f'{ROOT}:{ROOT}/tools'))
    assert code == 0 and 'in a group: True\nin a group at the end: False\n' in printed


@pytest.fixture
def broken_image(trained):
    """The second training image, which the second process reads, with half its data gone."""
    path = trained[0] / 'drawn/images/00001.jpg'
    content = path.read_bytes()
    path.write_bytes(content[:700])
    yield path
    path.write_bytes(content)


@pytest.mark.parametrize(('end', 'code'), [('pass', 0), ('raise ValueError', 1)])
def test_a_process_that_cannot_leave_the_group_ends_all_the_same(end, code):
    program = (
        'import atexit, time, launcher; launcher.PATIENCE = 0.1; launcher.dist.destroy_process_group = '
        f'lambda: time.sleep(600); atexit.register(launcher.leave_processes); print("begun")\n{end}'
    )
    environment = {**os.environ, 'PYTHONPATH': f'{ROOT}/tools:{ROOT}'}
    done = subprocess.run(
        [sys.executable, '-c', program], env=environment, capture_output=True, text=True, timeout=SOON
    )
    assert (done.returncode, done.stdout) == (code, 'begun\n')
    assert ('ValueError' in done.stderr) == bool(code)


def test_an_image_that_breaks_one_process_while_masks_are_written_ends_all(trained, broken_image):
    folder, options, _ = trained
    command = ('tools/dist_test.sh', CONFIG, folder / 'a work dir/iter_4.pth', 2, '--pseudo-masks')
    command += ('--work-dir', folder / 'tested', '--cfg-options', *options)
    code, printed = finish(start(*command, PORT=free_port()))
    assert 'Pseudo masks: 8 of 8 to write' in printed
    assert code != 0 and printed.count(str(broken_image)) > 1  # in the traceback, and in the summary of torchrun
    assert 'Root Cause' in printed and str(broken_image) in printed.split('Root Cause')[1]
    assert not (folder / 'tested/pseudo_masks/manifest.json').exists()


def test_an_image_that_breaks_training_on_one_machine_ends_the_other(trained, broken_image):
    """Two machines of one process each, both of them this one."""
    folder, options, _ = trained
    command = ('tools/dist_train.sh', CONFIG, 1, '--work-dir', folder / 'machines', '--cfg-options', *options)
    machines = dict(NNODES='2', MASTER_ADDR='127.0.0.1', PORT=free_port())
    in_order = 'train_dataloader.sampler.shuffle=False'
    processes = [start(*command, in_order, NODE_RANK=str(number), **machines) for number in range(2)]
    begun = time.monotonic()
    (first_code, first_printed), (second_code, second_printed) = map(finish, processes)
    assert first_code != 0 and second_code != 0
    assert 'on each of 2 processes' in first_printed
    assert str(broken_image) in second_printed.split('Root Cause')[1]
    assert time.monotonic() - begun < SOON


SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@"
"""


@pytest.mark.parametrize(
    ('script', 'arguments', 'handed_on'),
    [
        ('train', ['config.py'], ['config.py', '--launcher', 'slurm']),
        ('test', ['config.py', 'a checkpoint.pth'], ['config.py', 'a checkpoint.pth', '--launcher', 'slurm']),
    ],
)
def test_slurm_gets_processes_for_the_gpus_and_the_arguments(tmp_path, script, arguments, handed_on):
    """With a program in the place of srun that prints its arguments."""
    (tmp_path / 'srun').write_text(SRUN)
    (tmp_path / 'srun').chmod(0o755)
    further = ['--work-dir', 'a work dir']
    environment = dict(PATH=f'{tmp_path}:{os.environ["PATH"]}', GPUS='16', SRUN_ARGS='--qos=high --mem=0')
    process = start(f'tools/slurm_{script}.sh', 'gpus', 'a job', *arguments, *further, **environment)
    code, printed = finish(process)
    words = printed.splitlines()
    place = words.index('python')
    assert code == 0
    assert {'--partition=gpus', '--job-name=a job', '--ntasks=16', '--ntasks-per-node=8', '--gres=gpu:8'} <= set(words)
    assert words[place - 2 : place] == ['--qos=high', '--mem=0']
    assert words[place:] == ['python', '-u', f'tools/{script}.py', *handed_on, *further]


@pytest.mark.parametrize('script', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test'])
def test_a_script_without_its_arguments_says_how_it_is_used(script):
    code, printed = finish(start(f'tools/{script}.sh', 'config.py'))
    assert code != 0 and f'usage: tools/{script}.sh ' in printed


def test_slurm_without_a_gpu_is_explained():
    with pytest.raises(ValueError, match='--launcher slurm: expected a GPU for each process, got none'):
        join_processes_without_gpu(Config(dict(launcher='slurm')))
