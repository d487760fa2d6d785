"""Trainings that share a start, several seeds of each, and the masks they lead to: does AReAM help, and what of it?

The config says what the rows are, see configs/experiment_animals.py. What is there already is not done again, so that
an interrupted experiment goes on with the same command, and rows and seeds can be added. Each training logs to
`<work dir>/<row>/<seed>`; `results.json`, `results.md` and `results.png` in the work dir have the figures of all that
have ended: mean and standard deviation over the seeds (n − 1), mIoU in percent, and what each row has more than each of
the config's `baselines` of the same seed, which share its start

best          of the CAMs, at the background score that is best on the measured images themselves
fixed         at the config's test_cfg.background
mask-free     at the score chosen from the CAMs alone
pseudo masks  of the propagation that is best, at its best background score, refined
stage 2       on the val_dataloader of its config, once, trained on such masks of the training images (--stage-2)
"""

import argparse
import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from children import end_with
from console import QuietRunner
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.runner import Runner, autocast
from mmengine.utils import ProgressBar
from mmseg.evaluation import IoUMetric
from options import load_config
from prettytable import PrettyTable, TableStyle

from aream_mm.engine import PseudoMaskHook
from aream_mm.engine.checkpoints import latest_checkpoint
from aream_mm.engine.measuring import evenly_spread
from aream_mm.evaluation import CAMMetric
from aream_mm.files import write_atomically
from aream_mm.models.attention import mean_of
from aream_mm.models.cam import propagate
from aream_mm.models.segmentor import CAMSegmentor, RawCAM

START = 'start'
# Of the config, beside what the trainings are built from.
READ = ('seeds', 'images', 'refine', 'stage_2', START, 'rows', 'baselines', 'propagations', 'pseudo_mask_dataloader')
FIGURES, STAGE_2_FIGURES = 'figures.json', 'stage_2.json'
THRESHOLDS = {
    'cam/mIoU_best': 'Best threshold',
    'cam/mIoU_fixed': "The config's threshold",
    'cam/mIoU_mask_free': 'Mask-free threshold',
}


class Job(NamedTuple):
    """The training of a row and the measuring of its CAMs (stage 1), or stage 2 on its masks."""

    stage: int
    row: str
    seed: int


def folder_of(work_dir: Path, row: str, seed: int) -> Path:
    return work_dir / re.sub(r'[^\w.]+', '_', row) / str(seed)


def config_of_row(config: str, options: dict | None, row: str) -> Config:
    cfg = load_config(config, options, READ)
    return load_config(config, {**(options or {}), **(cfg.start if row == START else cfg.rows[row])}, READ)


def config_of(config: str, options: dict | None, work_dir: Path, row: str, seed: int) -> Config:
    """The config of one training, without a validation: it is measured once, in the end."""
    folder = folder_of(work_dir, row, seed)
    cfg = config_of_row(config, options, row)
    cfg.update(work_dir=str(folder), experiment_name=f'{folder.parent.name}_{seed}', randomness=dict(seed=seed))
    cfg.update(measured_dataloader=cfg.val_dataloader, val_dataloader=None, val_cfg=None, val_evaluator=None)
    if row != START:
        cfg.load_from = latest_checkpoint(str(folder_of(work_dir, START, seed)))
    return cfg


def train_and_measure(config: str, options: dict | None, work_dir: Path, row: str, seed: int, threads: int) -> None:
    """In a process of its own: the training of one row from the start of its seed, and figures.json beside its log."""
    torch.set_num_threads(threads)
    folder = folder_of(work_dir, row, seed)
    folder.mkdir(parents=True, exist_ok=True)
    cfg = config_of(config, options, work_dir, row, seed)
    began = time.time()
    with (folder / 'output.log').open('w') as output, contextlib.redirect_stdout(output):
        runner = QuietRunner.from_cfg(cfg)
        runner.train()
        trained = time.time()
        figures = {} if row == START else measure(runner.model, cfg)
    minutes = dict(training=(trained - began) / 60, measuring=(time.time() - trained) / 60)
    write_atomically(folder / FIGURES, json.dumps(dict(minutes=minutes, **figures)).encode())


@torch.no_grad()
def measure(model: CAMSegmentor, cfg: Config) -> dict[str, dict]:
    """`propagations`: what `CAMMetric` says of each; `pseudo_masks`: of the best. The network is run once for all."""
    every = range(model.backbone.num_layers)
    ways = {name: (every if layers is None else layers, steps) for name, (layers, steps) in cfg.propagations.items()}
    weights = [mean_of(layers) for layers, _ in ways.values()]
    affinity = {layer: torch.tensor([weight.get(layer, 0.0) for weight in weights]) for layer in every}
    dataset = evenly_spread(Runner.build_dataloader(cfg.measured_dataloader).dataset, cfg.images)
    loader = Runner.build_dataloader({**cfg.measured_dataloader, 'dataset': dataset})
    metrics = {name: CAMMetric() for name in ways}
    for metric in metrics.values():
        metric.dataset_meta = dataset.metainfo
    settings, progress, kept = model.test_cfg, ProgressBar(len(dataset)), []
    model.eval()
    for batch in loader:
        batch = model.data_preprocessor(batch)
        inputs, samples = batch['inputs'], batch['data_samples']
        with autocast(enabled=True):
            views = list(model.views(inputs, settings, affinity))
        logits = torch.stack([logit for view in views for logit in view.logits]).mean(dim=0)
        plain = [view.cam.float() for view in views]
        raw = {}
        for i, (name, (layers, steps)) in enumerate(ways.items()):
            maps = [view.attended.patch_affinity[i].float() for view in views] if layers else []
            cams = [propagate(cam, map, steps) for cam, map in zip(plain, maps, strict=True)] if layers else plain
            placed = [one for view, cam in zip(views, cams, strict=True) for one in view.placed(cam)]
            raw[name] = RawCAM(placed, views[-1].placed(plain[-1])[0].cam, logits)
            predictions = model.predict(inputs, samples, settings, raw[name])
            metrics[name].process({}, [prediction.to_dict() for prediction in predictions])
        kept.append(raw)
        for _ in samples:
            progress.update()
    figures = {name: metric.evaluate(len(dataset)) for name, metric in metrics.items()}

    best = max(figures, key=lambda name: figures[name]['cam/mIoU_best'])
    layers, steps = cfg.propagations[best]
    chosen = dict(background=figures[best]['cam/threshold_best'], propagate_layers=layers, propagate_steps=steps)
    settings = model.settings_with(**chosen, refine=cfg.refine)
    metric = IoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = dataset.metainfo
    for batch, raw in zip(loader, kept, strict=True):
        batch = model.data_preprocessor(batch)
        predictions = model.predict(batch['inputs'], batch['data_samples'], settings, raw[best])
        metric.process({}, [prediction.to_dict() for prediction in predictions])
    miou = float(metric.evaluate(len(dataset))['mIoU'])
    return dict(propagations=figures, pseudo_masks=dict(propagation=best, mIoU=miou, settings=chosen))


def train_stage_2(
    config: str, options: dict | None, stage_2_options: dict | None, work_dir: Path, row: str, seed: int, threads: int
) -> None:
    """In a process of its own: stage 2 on the pseudo masks of a row that has been measured, and stage_2.json."""
    torch.set_num_threads(threads)
    folder = folder_of(work_dir, row, seed)
    cfg = config_of(config, options, work_dir, row, seed)
    cfg.load_from = latest_checkpoint(str(folder))
    chosen = json.loads((folder / FIGURES).read_text())['pseudo_masks']['settings']
    began = time.time()
    with (folder / 'stage_2.log').open('w') as output, contextlib.redirect_stdout(output):
        runner = QuietRunner.from_cfg(cfg)
        runner.load_or_resume()
        writer = PseudoMaskHook(cfg.pseudo_mask_dataloader, test_cfg=dict(chosen, refine=cfg.refine), fp16=True)
        writer.before_train(runner)
        writer.write(runner, cfg.load_from)
        written = time.time()
        seg = load_config(cfg.stage_2, stage_2_options)
        seg.train_dataloader.dataset.mask_dir = str(writer.out_dir)
        seg.update(work_dir=str(folder / 'stage_2'), experiment_name=f'{cfg.experiment_name}_stage_2')
        seg.update(randomness=dict(seed=seed))
        runner = QuietRunner.from_cfg(seg)
        runner.train()
    miou = float(runner.message_hub.get_scalar('val/mIoU').current())
    minutes = dict(masks=(written - began) / 60, training=(time.time() - written) / 60)
    write_atomically(folder / STAGE_2_FIGURES, json.dumps(dict(minutes=minutes, mIoU=miou)).encode())


def collect(work_dir: Path, rows: Iterable[str]) -> dict[str, dict[int, dict]]:
    """Row → seed → the content of figures.json, and of stage_2.json where it is there, of all that have ended."""
    results = {}
    for row in rows:
        files = {int(file.parent.name): file for file in folder_of(work_dir, row, 0).parent.glob(f'*/{FIGURES}')}
        if files:
            results[row] = {seed: json.loads(files[seed].read_text()) for seed in sorted(files)}
        for seed, file in files.items():
            if (stage_2 := file.with_name(STAGE_2_FIGURES)).is_file():
                results[row][seed]['stage_2'] = json.loads(stage_2.read_text())
    return results


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    """The mean, and the standard deviation with n − 1, which one value alone does not have."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float('nan')


def cell(values: list[float]) -> str:
    if len(values) < 2:
        return f'{values[0]:.1f}' if values else ''
    return '{:.1f} ± {:.1f}'.format(*mean_and_deviation(values))


def markdown(columns: list[str], rows: list[list]) -> str:
    drawn = PrettyTable(columns, align='r')
    drawn.align[columns[0]] = 'l'
    drawn.add_rows(rows)
    drawn.set_style(TableStyle.MARKDOWN)
    return drawn.get_string()


def ways_of(results: dict[str, dict[int, dict]]) -> list[str]:
    return list(next(iter(next(iter(results.values())).values()))['propagations'])


def seeds_table(results: dict[str, dict[int, dict]], threshold: str) -> str:
    """A row for each training, a column for each propagation: mIoU at one of the thresholds."""
    ways = ways_of(results)
    rows = [
        [row, len(seeds), *(cell([one['propagations'][way][threshold] for one in seeds.values()]) for way in ways)]
        for row, seeds in results.items()
    ]
    return markdown(['row', 'seeds', *ways], rows)


def differences_table(results: dict[str, dict[int, dict]], baseline: str) -> str:
    """What a row has more than the baseline of the same seed, which has the same start: CAMs, pseudo masks, stage 2."""
    ways, rows = ways_of(results), []
    for row, seeds in results.items():
        pairs = [(one, results[baseline][seed]) for seed, one in seeds.items() if seed in results[baseline]]
        best = [[[each['propagations'][way]['cam/mIoU_best'] for each in pair] for pair in pairs] for way in ways]
        later = [
            [[each[part]['mIoU'] for each in pair] for pair in pairs if all(part in each for each in pair)]
            for part in ('pseudo_masks', 'stage_2')
        ]
        rows.append([row, len(pairs), *(cell([one - other for one, other in values]) for values in [*best, *later])])
    return markdown(['row', 'seeds', *ways, 'pseudo masks', 'stage 2, val'], rows)


def masks_table(results: dict[str, dict[int, dict]]) -> str:
    """A row for each training: CAMs of the best propagation, pseudo masks, stage 2."""
    rows = []
    for row, seeds in results.items():
        masks = [one['pseudo_masks'] for one in seeds.values()]
        best = [max(figures['cam/mIoU_best'] for figures in one['propagations'].values()) for one in seeds.values()]
        stage_2 = [one['stage_2']['mIoU'] for one in seeds.values() if 'stage_2' in one]
        ways = ', '.join(sorted({one['propagation'] for one in masks}))
        rows.append([row, len(seeds), ways, cell(best), cell([one['mIoU'] for one in masks]), cell(stage_2)])
    return markdown(['row', 'seeds', 'propagated by', 'best seeds', 'pseudo masks', 'stage 2, val'], rows)


def plot(results: dict[str, dict[int, dict]], path: Path) -> None:
    """A panel for each propagation: mIoU at the best threshold, one point per seed, mean and deviation."""
    ways = ways_of(results)
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


def report(work_dir: Path, rows: Iterable[str], baselines: Iterable[str]) -> str:
    """Write results.json, .md and .png of what has ended, and return the tables."""
    results = collect(work_dir, rows)
    tables = {name: seeds_table(results, threshold) for threshold, name in THRESHOLDS.items()}
    for baseline in (row for row in results if row in baselines):
        title = f'Difference to {baseline!r} of the same seed, at the best threshold'
        tables[title] = differences_table(results, baseline)
    tables['Masks'] = masks_table(results)
    text = '\n\n'.join(f'{name}:\n\n{table}' for name, table in tables.items())
    write_atomically(work_dir / 'results.json', json.dumps(results, indent=2).encode())
    write_atomically(work_dir / 'results.md', f'{text}\n'.encode())
    plot(results, work_dir / 'results.png')
    return text


def in_a_new_process(function: Callable, *arguments: object) -> None:
    """mmengine keeps loggers and more of a training before."""
    ends = dict(initializer=end_with, initargs=(os.getpid(), signal.SIGKILL))
    with ProcessPoolExecutor(1, get_context('spawn'), **ends) as process:
        process.submit(function, *arguments).result()


def run(cfg: Config, args: argparse.Namespace, rows: list[str], seeds: list[int]) -> None:
    """Do what is left of a comparison, and print its tables; the arguments are those of tools/experiment.py."""
    processes = args.processes or 1
    threads = max(torch.get_num_threads() // processes, 1)

    def file_of(job: Job) -> Path:
        return folder_of(args.work_dir, job.row, job.seed) / (FIGURES if job.stage == 1 else STAGE_2_FIGURES)

    def jobs_after(job: Job) -> list[Job]:
        if job.row == START:
            return [Job(1, row, job.seed) for row in rows]
        return [Job(2, job.row, job.seed)] if job.stage == 1 and job.row in args.stage_2 else []

    def with_all_after(job: Job) -> list[Job]:
        return [job, *(later for follower in jobs_after(job) for later in with_all_after(follower))]

    def submit(job: Job) -> None:
        if file_of(job).is_file():
            for follower in jobs_after(job):
                submit(follower)
        elif job.stage == 1:
            running[
                pool.submit(in_a_new_process, train_and_measure, *common, args.work_dir, job.row, job.seed, threads)
            ] = job
        else:
            options = (*common, args.stage_2_options)
            running[
                pool.submit(in_a_new_process, train_stage_2, *options, args.work_dir, job.row, job.seed, threads)
            ] = job

    for row in (START, *rows):
        config_of_row(args.config, args.cfg_options, row)  # whether all that they change is there
    starts, common, running = [Job(1, START, seed) for seed in seeds], (args.config, args.cfg_options), {}
    left = [job for start in starts for job in with_all_after(start) if not file_of(job).is_file()]
    with ThreadPoolExecutor(processes) as pool:
        for start in sorted(starts, key=lambda job: file_of(job).is_file()):  # first those that others wait for
            submit(start)
        progress = ProgressBar(len(left))
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    future.result()
                    for follower in jobs_after(job):
                        submit(follower)
                    if job.row != START:
                        report(args.work_dir, cfg.rows, cfg.baselines)
                    progress.update()
        except BaseException:  # Ctrl-C among them
            pool.shutdown(wait=False, cancel_futures=True)  # of what has not begun
            raise
    print()
    print(report(args.work_dir, cfg.rows, cfg.baselines))
