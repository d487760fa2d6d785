"""Kill small two-stage runs at random moments, resume them until they are complete, and compare with one left alone.

    python tests/proofs/interruptions.py --kills 30 --out interruptions.json

Draws a few images, and trains both stages on them with tools/train.py: stage 1 by epochs, with warm-up, entropy
weights, drop path and validation, then the masks, then stage 2 by iterations, with workers. SIGKILL and SIGTERM in turn
hit the whole process group of tools/train.py, up to `KILLS_A_RUN` times a run, at a random moment after a sign of the
phase in its log or among its files. After each kill every checkpoint has to load, and `last_checkpoint` has to name
one. Then the same command goes on with --resume. A run has survived when all this held and, at its end, it has the
files of the run left alone, masks that are equal byte by byte, and weights, optimiser state and best score of both
stages that are equal bit by bit.

Prints a table of the phases: kills, and those that left a temporary file, which tells that a file was being written.
A process starts as a fork of this one, which has imported everything; those to be killed in start-up begin anew. Takes
about 10 seconds a kill on two CPU cores; exits with 1 unless all runs survive.
"""

import argparse
import contextlib
import gc
import itertools
import json
import os
import random
import re
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.runner import Runner  # noqa: F401
from mmengine.utils import ProgressBar
from mmseg.apis import init_model  # noqa: F401  (imports all of mmseg before the processes fork)

import aream_mm.datasets
import aream_mm.engine
import aream_mm.evaluation
import aream_mm.models  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / 'tools'))
from draw_demo import draw_demo  # noqa: E402

KILLS_A_RUN = 6
TIME_LIMIT = 300  # seconds that a process may take

STAGE_1 = """
_base_ = {root!r} + '/configs/demo/aream_demo.py'
model = dict(
    backbone=dict(
        cnn=dict(pretrained=False),
        vit=dict(architecture=dict(embed_dim=48, num_heads=3), drop_path_rate=0.3, stem=None),
    ),
    head=dict(token_channels=48),
    attention_loss=dict(weights='entropy'),
    test_cfg=dict(scales=(1.0,)),
)
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, sampler=dict(type='DefaultSampler', shuffle=True)
)
val_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False)
max_epochs = 4
param_scheduler = dict(T_max=max_epochs, by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=2)
default_hooks = dict(
    logger=dict(interval=1, log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True, interval=1, save_best='multi-label/mAP'),
)
log_processor = dict(by_epoch=True)
entropy_dataloader = dict(_base_.pseudo_mask_dataloader, batch_size=4, num_workers=0)
mask_dataloader = dict(_base_.pseudo_mask_dataloader, batch_size=1, num_workers=0)
custom_hooks = [
    dict(type='aream_mm.WarmUpHook', end=2),
    dict(type='aream_mm.LayerEntropyHook', dataloader=entropy_dataloader),
    dict(_base_.custom_hooks[1], dataloader=mask_dataloader),
]
"""
STAGE_2 = """
_base_ = {root!r} + '/configs/demo/deeplabv3plus_demo.py'
model = dict(data_preprocessor=dict(size=(64, 64)), backbone=dict(pretrained=False))
crop = dict(type='RandomCrop', crop_size=(64, 64))
train_dataloader = dict(
    batch_size=4,
    dataset=dict(mask_dir={masks!r}, pipeline=[*_base_.train_pipeline[:3], crop, *_base_.train_pipeline[4:]]),
)
val_dataloader = dict(_base_.test_dataloader, _delete_=True, num_workers=0, persistent_workers=False)
val_cfg, val_evaluator = dict(type='ValLoop', _delete_=True), dict(_base_.test_evaluator, _delete_=True)
max_iters = 12
param_scheduler = dict(end=max_iters)
train_cfg = dict(max_iters=max_iters, val_interval=6)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=3, save_best='mIoU'))
"""


class Phase(NamedTuple):
    """When to kill: up to `delay` seconds after a sign.

    sign    'start'; 'file' and a pattern: a file of this name is being written in the work dir; 'line' and a pattern:
            one of the first `lines` lines of the log that match has been written
    """

    name: str
    stage: int
    sign: str
    pattern: str
    delay: float
    lines: int = 1


PHASES = (
    Phase('stage 1: start-up', 1, 'start', '', 10.0),
    Phase('stage 1: training', 1, 'line', r'Epoch\(train\)', 0.3, lines=6),
    Phase('stage 1: writing a checkpoint', 1, 'file', 'epoch_*.pth.tmp', 0.05),
    Phase('stage 1: validation', 1, 'line', r'Epoch\(val\)', 0.2, lines=4),
    Phase('stage 1: writing the best checkpoint', 1, 'file', 'best_*.pth.tmp', 0.05),
    Phase('stage 1: writing masks', 1, 'file', 'pseudo_masks/*.png*', 0.3),
    Phase('stage 2: start-up', 2, 'start', '', 10.0),
    Phase('stage 2: training', 2, 'line', r'Iter\(train\)', 0.3, lines=6),
    Phase('stage 2: writing a checkpoint', 2, 'file', 'iter_*.pth.tmp', 0.05),
    Phase('stage 2: writing the best checkpoint', 2, 'file', 'best_*.pth.tmp', 0.05),
)


def write_configs(run: Path) -> dict[int, Path]:
    """Stage → its config in the new folder `run`; stage 2 takes the masks of this run's stage 1."""
    run.mkdir()
    configs = {stage: run / f'stage_{stage}.py' for stage in (1, 2)}
    configs[1].write_text(STAGE_1.format(root=str(ROOT)))
    configs[2].write_text(STAGE_2.format(root=str(ROOT), masks=str(work_dir(configs[1]) / 'pseudo_masks')))
    return configs


def work_dir(config: Path) -> Path:
    return config.with_name(f'{config.stem}_work')


def start(config: Path, images: Path, fresh: bool) -> int:
    """Start or resume tools/train.py as the head of a process group; returns its id. It logs to `<config>.log`."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        gc.freeze()  # what it has inherited, which mmengine searches for garbage; that would copy all of its memory
        os.setsid()
        log = os.open(config.with_suffix('.log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = os.fdopen(1, 'w', buffering=1), os.fdopen(2, 'w', buffering=1)
        resume = ['--resume'] if any(work_dir(config).glob('*/*.log')) else []
        options = ['--work-dir', str(work_dir(config)), *resume, '--cfg-options', f'data_root={images}']
        arguments = [str(ROOT / 'tools/train.py'), str(config), *options]
        if fresh:
            os.execv(sys.executable, [sys.executable, *arguments])
        sys.argv = arguments
        torch.set_num_threads(1)
        runpy.run_path(arguments[0], run_name='__main__')
        code = 0
    except BaseException:  # it must not go on with the program that it is a fork of
        traceback.print_exc()
    finally:
        os._exit(code)


def finish(config: Path, images: Path, phase: Phase | None = None, number: signal.Signals | None = None) -> bool:
    """Run tools/train.py to its end, or send it the signal in the phase; returns whether it ended by itself.

    Raises:
        RuntimeError: it failed, or took longer than `TIME_LIMIT`.
    """
    log = config.with_suffix('.log')
    log.touch()
    old, began = log.stat().st_size, time.time()
    lines = phase and random.randint(1, phase.lines)

    def shows_the_sign() -> bool:
        if phase.sign == 'line':
            return len(re.findall(phase.pattern, log.read_text()[old:])) >= lines
        if phase.sign == 'file':
            return any(written(path) > began for path in work_dir(config).glob(phase.pattern))
        return True

    pid = start(config, images, fresh=phase is not None and phase.sign == 'start')
    kill_at = None
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        now = time.time()
        if ended and not status:
            return True
        if ended or now > began + TIME_LIMIT:
            if not ended:
                os.killpg(pid, signal.SIGKILL)
            raise RuntimeError(
                f'{config}: expected an end without error within {TIME_LIMIT} s\n{log.read_text()[-4000:]}'
            )
        if phase and kill_at is None and shows_the_sign():
            kill_at = now + random.uniform(0, phase.delay)
        if kill_at and now >= kill_at:
            os.killpg(pid, number)
            os.waitpid(pid, 0)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # workers that SIGTERM left
            return False
        time.sleep(0.001)


def written(path: Path) -> float:
    """When the file was written last; 0 where it has been renamed since it was listed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def broken_checkpoints(folder: Path) -> list[str]:
    """What does not hold right after a kill."""
    problems = []
    for path in folder.glob('*.pth'):
        try:
            torch.load(path, map_location='cpu', weights_only=False)
        except Exception as error:  # whatever a damaged file makes it raise
            problems.append(f'{path}: {error}')
    last = folder / 'last_checkpoint'
    if last.is_file() and not Path(last.read_text() or 'nothing').is_file():
        problems.append(f'{last}: names {last.read_text()!r}')
    return problems


def equal(one: object, other: object) -> bool:
    """Whether two nested structures are the same, tensors bit by bit."""
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.shape == other.shape and one.dtype == other.dtype
        return same and one.numpy().tobytes() == other.numpy().tobytes()
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def training_state(checkpoint: dict) -> dict:
    """What of a checkpoint the training goes on with; paths, times and the log are left out."""
    score = checkpoint['message_hub']['runtime_info'].get('best_score')
    return dict({key: checkpoint.get(key) for key in ('state_dict', 'optimizer', 'param_schedulers')}, score=score)


def differences(one: Path, other: Path) -> list[str]:
    """What one work dir has otherwise than the other one, but for logs."""
    found = [f'{path}: left over' for path in one.rglob('*.tmp')]
    files = [
        {str(path.relative_to(folder)) for pattern in ('*', 'pseudo_masks/*') for path in folder.glob(pattern)}
        for folder in (one, other)
    ]
    names = [{name for name in each if not re.fullmatch(r'\d{8}_\d{6}(\.py)?', name)} for each in files]
    found += [f'{name}: in one run alone' for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        if name.endswith('.pth'):
            pair = [torch.load(folder / name, map_location='cpu', weights_only=False) for folder in (one, other)]
            if not equal(*map(training_state, pair)):
                found.append(f'{name}: other weights, optimiser state or best score')
        elif name.endswith('manifest.json'):
            pair = [json.loads((folder / name).read_text()) for folder in (one, other)]
            if any(pair[0][key] != pair[1][key] for key in pair[1] if key not in ('checkpoint', 'command')):
                found.append(f'{name}: other content')
        elif name.endswith('.png') and (one / name).read_bytes() != (other / name).read_bytes():
            found.append(f'{name}: other bytes')
    return found


def train(run: Path, images: Path, kills: list[tuple[Phase, signal.Signals]]) -> Iterator[dict]:
    """Both stages in the new folder `run`, hit in turn by the kills of `kills` that come in time: what each left."""
    for stage, config in write_configs(run).items():
        for phase, number in (kill for kill in kills if kill[0].stage == stage):
            if not finish(config, images, phase, number):
                folder = work_dir(config)
                yield dict(
                    phase=phase.name,
                    signal=number.name,
                    temporary=any(folder.rglob('*.tmp')),
                    problems=broken_checkpoints(folder),
                )
        finish(config, images)


def compare(run: Path, alone: Path) -> list[str]:
    """What both stages of a run have otherwise than those of the one left alone."""
    return [line for stage in ('stage_1_work', 'stage_2_work') for line in differences(run / stage, alone / stage)]


def kills_of_a_run(kills: Iterator[tuple[Phase, signal.Signals]]) -> list[tuple[Phase, signal.Signals]]:
    """The next ones, in the order of the phases."""
    return sorted(itertools.islice(kills, KILLS_A_RUN), key=lambda kill: PHASES.index(kill[0]))


def all_kills() -> Iterator[tuple[Phase, signal.Signals]]:
    """All phases with one of both signals each, then with the other, and so on, each time in another order."""
    for turn in itertools.count():
        signals = [(signal.SIGKILL, signal.SIGTERM)[(turn + i) % 2] for i in range(len(PHASES))]
        yield from random.sample(list(zip(PHASES, signals, strict=True)), len(PHASES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=30)
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--out', type=Path, help='JSON file for the figures')
    args = parser.parse_args()
    random.seed(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        images = folder / 'images'
        draw_demo(images, num_train=12, num_val=4, size=64)
        list(train(folder / 'alone', images, []))
        hits, found, kills = [], {}, all_kills()
        progress = ProgressBar(args.kills)
        while len(hits) < args.kills:
            run = folder / f'run_{len(found)}'
            of_run = []
            for hit in train(run, images, kills_of_a_run(kills)):
                of_run.append(dict(hit, run=len(found)))
                progress.update()
            hits += of_run
            problems = [problem for hit in of_run for problem in hit['problems']]
            found[len(found)] = problems + compare(run, folder / 'alone')
            shutil.rmtree(run)
    print('\n\n| phase | kills | SIGKILL | SIGTERM | in the middle of a file |\n| --- | --- | --- | --- | --- |')
    for phase in PHASES:
        of_it = [hit for hit in hits if hit['phase'] == phase.name]
        signals = Counter(hit['signal'] for hit in of_it)
        writing = sum(hit['temporary'] for hit in of_it)
        print(f'| {phase.name} | {len(of_it)} | {signals["SIGKILL"]} | {signals["SIGTERM"]} | {writing} |')
    survived = sum(not problems for problems in found.values())
    print(f'\n{survived} of {len(found)} runs survived {len(hits)} kills')
    for number, problems in found.items():
        for problem in problems:
            print(f'run {number}: {problem}')
    if args.out:
        args.out.write_text(
            json.dumps(dict(runs=len(found), survived=survived, kills=hits, differences=found), indent=2)
        )
    sys.exit(survived < len(found))


if __name__ == '__main__':
    main()
