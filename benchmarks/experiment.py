"""Train the rows of an experiment, several seeds of each, and measure their CAMs: does AReAM help, and what of it?

    python benchmarks/experiment.py configs/experiment_animals.py --cfg-options data_root=/path/to/VOC2012
    python benchmarks/experiment.py configs/experiment_animals.py --rows 'no AReAM' AReAM --seeds 0 1 2 3 4

The config says what the rows are, see configs/experiment_animals.py. What is there already is not done again, so that
an interrupted experiment goes on with the same command, and rows and seeds can be added. Each training logs to
`<work dir>/<row>/<seed>`; `results.json`, `results.md` and `results.png` in the work dir have the figures of all that
have ended: mean and standard deviation over the seeds (n − 1), mIoU in percent

best        at the background score that is best on the measured pictures themselves
fixed       at the config's test_cfg.background
mask-free   at the score chosen from the CAMs alone
"""

import argparse
import contextlib
import json
import re
import time
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.config import Config, DictAction
from mmengine.runner import Runner, autocast, find_latest_checkpoint
from mmengine.utils import ProgressBar
from prettytable import PrettyTable, TableStyle

from aream_mm.config import load_config
from aream_mm.engine.layer_entropy import evenly_spread
from aream_mm.evaluation import CAMMetric
from aream_mm.files import write_atomically
from aream_mm.models.cam import add_mirror, propagate
from aream_mm.models.segmentor import CAMSegmentor, RawCAM, mean_of

START = 'start'
FIGURES = 'figures.json'
THRESHOLDS = {
    'cam/mIoU_best': 'Best threshold',
    'cam/mIoU_fixed': "The config's threshold",
    'cam/mIoU_mask_free': 'Mask-free threshold',
}


def folder_of(work_dir: Path, row: str, seed: int) -> Path:
    return work_dir / re.sub(r'[^\w.]+', '_', row) / str(seed)


def train_and_measure(config: str, options: dict | None, work_dir: Path, row: str, seed: int, threads: int) -> None:
    """In a process of its own: the training of one row from the start of its seed, and figures.json beside its log."""
    torch.set_num_threads(threads)
    folder = folder_of(work_dir, row, seed)
    folder.mkdir(parents=True, exist_ok=True)
    cfg = load_config(config, options)
    cfg.merge_from_dict(cfg.start if row == START else cfg.rows[row])
    cfg.update(work_dir=str(folder), experiment_name=f'{folder.parent.name}_{seed}', randomness=dict(seed=seed))
    loader = cfg.val_dataloader
    cfg.update(val_dataloader=None, val_cfg=None, val_evaluator=None)  # measured once, in the end
    if row != START:
        cfg.load_from = find_latest_checkpoint(str(folder_of(work_dir, START, seed)))
    began = time.time()
    with (folder / 'output.log').open('w') as output, contextlib.redirect_stdout(output):
        runner = Runner.from_cfg(cfg)
        runner.train()
        trained = time.time()
        figures = {} if row == START else measure(runner.model, cfg, loader)
    minutes = dict(training=(trained - began) / 60, measuring=(time.time() - trained) / 60)
    write_atomically(folder / FIGURES, json.dumps(dict(minutes=minutes, propagations=figures)).encode())


@torch.no_grad()
def measure(model: CAMSegmentor, cfg: Config, loader: dict) -> dict[str, dict[str, float]]:
    """What `CAMMetric` says of the CAMs of each way to propagate them; the network is run once for all."""
    every = range(model.backbone.num_layers)
    ways = {name: (every if layers is None else layers, steps) for name, (layers, steps) in cfg.propagations.items()}
    weights = [mean_of(layers) for layers, _ in ways.values()]
    affinity = {layer: torch.tensor([weight.get(layer, 0.0) for weight in weights]) for layer in every}
    dataset = evenly_spread(Runner.build_dataloader(loader).dataset, cfg.pictures)
    metrics = {name: CAMMetric() for name in ways}
    for metric in metrics.values():
        metric.dataset_meta = dataset.metainfo
    settings, progress = model.test_cfg, ProgressBar(len(dataset))
    model.eval()
    for batch in Runner.build_dataloader({**loader, 'dataset': dataset}):
        batch = model.data_preprocessor(batch)
        inputs, samples = batch['inputs'], batch['data_samples']
        with autocast(enabled=True):
            views = list(model.views(inputs, affinity, settings.scales, settings.mirror))
        logits = torch.stack([logit for view in views for logit in view.logits]).mean(dim=0)
        plain = [view.cam.float() for view in views]
        for i, (name, (layers, steps)) in enumerate(ways.items()):
            maps = [view.attended.patch_affinity[i].float() for view in views] if layers else []
            cams = [propagate(cam, map, steps) for cam, map in zip(plain, maps, strict=True)] if layers else plain
            raw = RawCAM([add_mirror(cam) for cam in cams], add_mirror(plain[-1]), logits)
            predictions = model.predict_from(raw, inputs, samples)
            metrics[name].process({}, [prediction.to_dict() for prediction in predictions])
        for _ in samples:
            progress.update()
    return {name: metric.evaluate(len(dataset)) for name, metric in metrics.items()}


def collect(work_dir: Path, rows: Iterable[str], seeds: Iterable[int]) -> dict[str, dict[int, dict]]:
    """Row → seed → the content of figures.json, of all that have ended."""
    files = {row: {seed: folder_of(work_dir, row, seed) / FIGURES for seed in seeds} for row in rows}
    ended = {row: {seed: file for seed, file in each.items() if file.is_file()} for row, each in files.items()}
    return {
        row: {seed: json.loads(file.read_text()) for seed, file in each.items()} for row, each in ended.items() if each
    }


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    """The mean, and the standard deviation with n − 1, which one value alone does not have."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float('nan')


def table(results: dict[str, dict[int, dict]], threshold: str) -> PrettyTable:
    """A row for each training, a column for each propagation: mIoU at one of the thresholds."""
    ways = list(next(iter(next(iter(results.values())).values()))['propagations'])
    drawn = PrettyTable(['row', 'seeds', *ways])
    drawn.align = 'r'
    drawn.align['row'] = 'l'
    for row, seeds in results.items():
        cells = [[figures['propagations'][way][threshold] for figures in seeds.values()] for way in ways]
        drawn.add_row([row, len(seeds), *('{:.1f} ± {:.1f}'.format(*mean_and_deviation(values)) for values in cells)])
    drawn.set_style(TableStyle.MARKDOWN)
    return drawn


def plot(results: dict[str, dict[int, dict]], path: Path) -> None:
    """A panel for each propagation: mIoU at the best threshold, a point a seed, mean and deviation."""
    ways = list(next(iter(next(iter(results.values())).values()))['propagations'])
    figure = Figure(figsize=(3 + 2.2 * len(ways), 1.2 + 0.35 * len(results)), layout='constrained')
    for way, axes in zip(ways, figure.subplots(1, len(ways), sharey=True, squeeze=False)[0], strict=True):
        for place, seeds in enumerate(results.values()):
            values = [figures['propagations'][way]['cam/mIoU_best'] for figures in seeds.values()]
            mean, deviation = mean_and_deviation(values)
            axes.plot(values, [place] * len(values), '.', color='0.6')
            axes.errorbar(mean, place, xerr=deviation, fmt='o', color='C0', capsize=3)
        axes.set(title=way, xlabel='mIoU', yticks=range(len(results)), yticklabels=list(results))
        axes.grid(axis='x', alpha=0.3)
    axes.invert_yaxis()  # they share it
    FigureCanvasAgg(figure).print_png(path)


def report(work_dir: Path, rows: Iterable[str], seeds: Iterable[int]) -> str:
    """Write results.json, .md and .png of what has ended, and return the tables."""
    results = collect(work_dir, rows, seeds)
    text = '\n\n'.join(f'{name}:\n\n{table(results, threshold)}' for threshold, name in THRESHOLDS.items())
    write_atomically(work_dir / 'results.json', json.dumps(results, indent=2).encode())
    write_atomically(work_dir / 'results.md', f'{text}\n'.encode())
    plot(results, work_dir / 'results.png')
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/experiment'))
    parser.add_argument('--rows', nargs='+', help='names; default: all of the config')
    parser.add_argument('--seeds', nargs='+', type=int, help="default: the config's")
    parser.add_argument('--processes', type=int, default=1, help='trainings at a time, which share the threads')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings, key=value')
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    rows, seeds = args.rows or list(cfg.rows), args.seeds or list(cfg.seeds)
    if unknown := sorted({*rows} - {*cfg.rows}):
        parser.error(f'expected rows of {list(cfg.rows)}, got {unknown}')
    threads = max(torch.get_num_threads() // args.processes, 1)

    def submit(row: str, seed: int) -> Future | None:
        if (folder_of(args.work_dir, row, seed) / FIGURES).is_file():
            return None
        return pool.submit(train_and_measure, args.config, args.cfg_options, args.work_dir, row, seed, threads)

    # A new process for each training, for mmengine keeps loggers and more of the one before.
    with ProcessPoolExecutor(args.processes, get_context('spawn'), max_tasks_per_child=1) as pool:
        starts = {seed: submit(START, seed) for seed in seeds}
        futures = []
        for seed, start in starts.items():
            if start:
                start.result()
            futures += [submit(row, seed) for row in rows]
        futures = [future for future in futures if future]
        progress = ProgressBar(len(futures))
        for future in as_completed(futures):
            future.result()
            report(args.work_dir, cfg.rows, cfg.seeds)
            progress.update()
    print()
    print(report(args.work_dir, cfg.rows, cfg.seeds))


if __name__ == '__main__':
    main()
