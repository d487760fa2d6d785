"""Memory and open files over a long run: whether anything grows with the steps of stage 1, or with the CAMs made.

    python tests/proofs/health.py --out health.json

Trains a tiny network of stage 1 on drawn images for 2,000 steps, with two workers, the log and all hooks of
configs/_base_/default_runtime.py, and then writes pseudo masks 5,000 times. Prints a table of the resident memory (MB,
workers and all) and of the open file handles of the main process, and their slopes per 1,000 over the last four fifths,
with the standard error of least squares, which is too small where memory grows in stairs; the first fifth fills caches.
The masks are looked at after every `IMAGES`, when workers and loader are gone, so that what is freed by then is not
seen. Takes two to ten minutes on two CPU cores.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.utils import ProgressBar

from aream_mm.engine import PseudoMaskHook

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / 'tools'))
from draw_demo import draw_demo  # noqa: E402
from options import load_config  # noqa: E402

IMAGES = 50
SAMPLES = 100  # of memory and handles, in the training
ROWS = 10  # of the table
CONFIG = """
_base_ = {root!r} + '/configs/demo/aream_demo.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='aream_mm.AttentionViT',
        name='vit_tiny_patch16_224',
        num_class_tokens=5,
        img_size=64,
        drop_path_rate=0.1,
        architecture=dict(embed_dim=24, depth=6, num_heads=3),
    ),
    head=dict(_delete_=True, type='aream_mm.CAMHead', num_classes=5, in_channels=24),
    test_cfg=dict(scales=(1.0,)),
)
crop = dict(type='mmpretrain.RandomResizedCrop', scale=64, crop_ratio_range=(0.5, 1.0))
pipeline = [_base_.train_pipeline[0], crop, *_base_.train_pipeline[2:]]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=pipeline))
param_scheduler = dict(T_max={steps})
train_cfg = dict(max_iters={steps}, val_interval=10**9)
val_cfg, val_dataloader, val_evaluator = None, None, None
default_hooks = dict(checkpoint=dict(interval=500))
custom_hooks = [dict(type='aream_mm.WarmUpHook', end={steps} // 10, by_epoch=False)]
"""


def resident(pid: int | str) -> float:
    """Resident memory of a process and those it has started, MB."""
    pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
    children = [
        child for thread in Path(f'/proc/{pid}/task').iterdir() for child in (thread / 'children').read_text().split()
    ]
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6 + sum(map(resident, children))


class Recorder(Hook):
    """What a part of the run holds, after every so many steps."""

    priority = 'LOWEST'

    def __init__(self, total: int) -> None:
        self.every = max(1, total // SAMPLES)
        self.rows = []
        self.progress = ProgressBar(total)

    def record(self, count: int) -> None:
        self.rows.append((count, resident('self'), len(os.listdir('/proc/self/fd'))))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict, outputs: dict) -> None:
        self.progress.update()
        if self.every_n_train_iters(runner, self.every):
            self.record(runner.iter + 1)


def slope(counts: list[int], values: list[float]) -> tuple[float, float]:
    """Growth per 1,000 over the last four fifths by least squares, and its standard error."""
    start = len(counts) // 5
    (growth, _), covariance = np.polyfit(np.array(counts[start:]) / 1000, values[start:], 1, cov=True)
    return float(growth), float(np.sqrt(covariance[0, 0]))


def summarise(what: str, rows: list[tuple[int, float, int]]) -> dict:
    """Prints the table of a part, and returns its figures."""
    counts, memory, handles = map(list, zip(*rows, strict=True))
    print(f'\n\n| {what} | memory, MB | open files |\n| --- | --- | --- |')
    for i in np.linspace(0, len(rows) - 1, ROWS, dtype=int):
        print(f'| {counts[i]} | {memory[i]:.1f} | {handles[i]} |')
    figures = dict(memory_mb=slope(counts, memory), open_files=slope(counts, handles))
    for name, (growth, error) in figures.items():
        print(f'{what}: {name} grows by {growth:+.3f} ± {error:.3f} per 1,000')
    return dict(per_1000=figures, counts=counts, memory_mb=memory, open_files=handles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=2000, help='of training')
    parser.add_argument('--cams', type=int, default=5000, help='pseudo masks')
    parser.add_argument('--out', type=Path, help='JSON file for the figures')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw_demo(folder / 'images', num_train=IMAGES, num_val=4, size=64)
        (folder / 'health.py').write_text(CONFIG.format(root=str(ROOT), steps=args.steps))
        cfg = load_config(folder / 'health.py', dict(data_root=str(folder / 'images')))
        cfg.work_dir = str(folder / 'work')
        cfg.log_level = 'WARNING'
        cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
        runner = Runner.from_cfg(cfg)
        training = Recorder(args.steps)
        runner.register_hook(training)
        runner.train()
        runner.train_loop.dataloader_iterator = None  # its workers end
        writer = PseudoMaskHook(cfg.pseudo_mask_dataloader, out_dir=str(folder / 'masks'))
        writer.before_train(runner)
        masks = Recorder(args.cams)
        for count in range(IMAGES, args.cams + 1, IMAGES):
            writer.write(runner, None)
            masks.record(count)
            for mask in (folder / 'masks').glob('*.png'):
                mask.unlink()
    figures = {'training steps': training.rows, 'CAMs': masks.rows}
    figures = {what: summarise(what, rows) for what, rows in figures.items()}
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2))


if __name__ == '__main__':
    main()
