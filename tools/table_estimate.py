"""What the steps of a table take on this machine, measured before the first of them, without data and weights.

Each network is built with random weights and trains and predicts on drawn photographs, through the pipelines of its own
config, in a process of its own: seconds per step and per image, memory, size of the checkpoints. The schedules and
the numbers of images make hours of that.

On a CPU, steps are measured on small batches and extrapolated to that of the config.
"""

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import aream_mm.quiet  # noqa: F401

import numpy as np
import torch
from children import run_command
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import autocast
from mmseg.datasets import PascalVOCDataset
from options import load_config
from PIL import Image
from prettytable import PrettyTable
from table import FEW, Step, Table, fingerprint, mask_loader, with_net, write_config

from aream_mm.engine.measuring import entropy_of_layers
from aream_mm.evaluation import CAMMetric
from aream_mm.files import write_atomically
from aream_mm.registry import MODELS

SMALL = (2, 4)  # batches that a CPU is measured with
MEASURED, ENOUGH = 5, 4.0  # so many calls, or as many as take so many seconds
DRAWN = 4  # photographs
MASK_BYTES = 3500  # of a mask of VOC's size
STAGES = ('stage 1', 'affinity', 'stage 2')


class Cost(NamedTuple):
    """seconds, bytes of memory of a process (of the GPU where there is one), bytes on disk."""

    seconds: float
    memory: int
    disk: int


class Estimate:
    """What each step takes."""

    def __init__(self, costs: dict[Step, Cost], device: str) -> None:
        self.costs, self.device = costs, device

    @classmethod
    def of(cls, table: Table) -> 'Estimate':
        """What `estimate.json` in the work dir does not have of these networks and this machine is measured now."""
        path, device = table.work_dir / 'estimate.json', device_name()
        measured = measure_all(table, json.loads(path.read_text())['measured'] if path.is_file() else {})
        costs = {step: cost_of(step, table, measured) for step in table.steps}
        steps = {str(step): cost._asdict() for step, cost in costs.items()}
        table.work_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(dict(device=device, measured=measured, steps=steps), indent=2).encode())
        return cls(costs, device)

    def text(self) -> str:
        """A row for each row of the table, over its seeds, and one for all."""
        drawn = PrettyTable(['row', 'seeds', 'hours', 'memory, GB', 'disk, GB'], align='r')
        drawn.align['row'] = 'l'
        rows = dict.fromkeys(step.row for step in self.costs)
        for name in (*rows, 'all'):
            own = [(step, cost) for step, cost in self.costs.items() if name in (step.row, 'all')]
            hours, disk = (sum(cost[part] for _, cost in own) for part in (0, 2))
            seeds, memory = len({step.seed for step, _ in own}), max(cost.memory for _, cost in own)
            drawn.add_row([name, seeds, f'{hours / 3600:.2f}', f'{memory / 1e9:.1f}', f'{disk / 1e9:.1f}'])
        return f'What it takes on {self.device}:\n{drawn}'

    def remaining(self, done: dict[Step, float]) -> float:
        """Seconds of the steps that are not done, by the estimate and by how it has been wrong so far.

        Of steps of the same kind, or where none of them has ended, of all.
        """

        def factor(steps: list[Step]) -> float | None:
            return sum(map(done.get, steps)) / sum(self.costs[step].seconds for step in steps) if steps else None

        overall = factor(list(done)) or 1
        by_kind = {step.kind: factor([other for other in done if other.kind == step.kind]) for step in self.costs}
        return sum(
            cost.seconds * (by_kind[step.kind] or overall) for step, cost in self.costs.items() if step not in done
        )


def device_name() -> str:
    if get_device() == 'cuda':
        return torch.cuda.get_device_name()
    return f'{get_device()}, threads: {torch.get_num_threads()}'


def number_of(loader: dict, table: Table) -> int:
    """Images of a loader: those of its list where that is there, otherwise as the experiment's config says."""
    inner = loader['dataset'].get('dataset', loader['dataset'])
    path = Path(inner.get('data_root') or '', inner['ann_file'])
    number = len(path.read_text().split()) if path.is_file() else table.cfg.images[path.stem]
    indices = inner.get('indices')
    return number if indices is None else min(number, indices if isinstance(indices, int) else len(indices))


def cost_of(step: Step, table: Table, measured: dict[str, dict]) -> Cost:
    """Of one step, from what was measured of its network."""
    found = measured[name_of(step)]
    cfg, gpus = table.base(step.kind, step.part or step.row, table.cfg.data_root), table.gpus
    if step.kind in STAGES:
        return training_cost(step, table, cfg, found)
    if step.kind in ('masks', 'walk'):
        loader = mask_loader(cfg)
        names = [name for name in found['masks'] if (name in table.walks) == (step.kind == 'walk')]
        images = number_of(loader, table)
        each = sum(image_seconds(found['masks'][name], found, loader) for name in names)
        seconds = FEW * image_seconds(found['predict'], found, cfg.test_dataloader) + images * each
        return Cost(found['start'] + seconds / gpus, found['predict_memory'], MASK_BYTES * images * len(names))
    seconds = number_of(cfg.test_dataloader, table) * image_seconds(found['predict'], found, cfg.test_dataloader)
    return Cost(found['start'] + seconds / gpus, found['predict_memory'], 0)


def training_cost(step: Step, table: Table, cfg: Config, found: dict) -> Cost:
    train, loader, hooks = cfg.train_cfg, cfg.train_dataloader, cfg.get('custom_hooks') or []
    epoch = math.ceil(number_of(loader, table) / loader.batch_size)
    by_iterations = 'max_iters' in train
    steps = train.max_iters if by_iterations else train.max_epochs * epoch
    warm_up = next((hook for hook in hooks if hook['type'] == 'aream_mm.WarmUpHook'), {})
    warm = min(warm_up.get('end', 0) * (epoch if warm_up.get('by_epoch', True) else 1), steps)
    compute = warm * found['steps'][0] + (steps - warm) * found['steps'][-1]
    seconds = with_loading(compute, steps * loader.batch_size / table.gpus * found['load'], loader)
    length = train.max_iters if by_iterations else train.max_epochs
    if step.kind == 'stage 1' and cfg.get('val_dataloader'):
        each = image_seconds(found['predict'], found, cfg.val_dataloader) / table.gpus
        begin, interval = train.get('val_begin', 1), train.get('val_interval', 1)
        times = sum(now >= begin for now in {*range(interval, length + 1, interval), length if by_iterations else 0})
        seconds += times * number_of(cfg.val_dataloader, table) * each
    for hook in hooks:
        if hook['type'] == 'aream_mm.LayerEntropyHook':
            images = number_of(hook['dataloader'], table)
            images = min(images, hook.get('num_images') or images)
            seconds += images * (found['entropy'] + found['predict_load']) / table.gpus
    checkpoint = cfg.default_hooks.checkpoint
    saves = max(length // checkpoint.get('interval', 1), 1)
    kept = checkpoint.get('max_keep_ckpts', -1)
    best = 1 if step.kind == 'stage 1' and checkpoint.get('save_best') else 0
    number = saves if kept < 0 else min(saves, kept)
    disk = number * found['checkpoint_bytes'] + best * found['weights_bytes']
    return Cost(found['start'] + seconds + saves * found['save'], found['memory'], disk)


def with_loading(compute: float, load: float, loader: dict) -> float:
    """Seconds of computing and loading: beside one another on a GPU, one after the other where both take the CPU."""
    workers = min(loader.get('num_workers', 0), os.cpu_count())
    return max(compute, load / workers) if workers and get_device() != 'cpu' else compute + load


def image_seconds(compute: float, found: dict, loader: dict) -> float:
    return with_loading(compute, found['predict_load'], loader)


def name_of(step: Step) -> str:
    return step.kind if step.kind == 'affinity' else step.part or step.row


def measure_all(table: Table, known: dict[str, dict]) -> dict[str, dict]:
    """By row, decoder and for the AffinityNet, what `measure` says of it; `known` has some of that already."""
    trainings = {name_of(step): step for step in table.steps if step.kind in STAGES}
    answers = dict(known)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number, (name, step) in enumerate(trainings.items(), start=1):
            request = dict(kind=step.kind, gpus=table.gpus, tta=table.cfg.tta, image_size=table.cfg.image_size)
            if step.kind == 'stage 1':
                request.update(refiners=table.refiners(step._replace(kind='masks')))
                request.update(walks={walk: table.cfg.refiners[walk] for walk in table.walks})
                request.update(net=table.base('affinity', '', None).model if table.walks else None)
            part = step.part or step.row
            key = fingerprint(request, table.base(step.kind, part, None).to_dict(), device_name())
            if answers.get(name, {}).get('key') == key:
                continue
            print(f'measuring {name}, {number} of {len(trainings)} networks …', flush=True)
            root, path = folder / f'drawn_{number}', folder / 'config.py'
            cfg = table.base(step.kind, part, str(root))
            draw(root, cfg, table.cfg.image_size)
            write_config(cfg, path)
            answers[name] = dict(ask(dict(request, config=str(path)), folder), key=key)
    return answers


def ask(request: dict, folder: Path) -> dict:
    """`measure` in a process of its own, whose memory is that of the network."""
    path = folder / 'request.json'
    path.write_text(json.dumps(dict(request, began=time.time())))
    log = folder / 'measure.log'
    if run_command([sys.executable, __file__, path], log):
        raise RuntimeError(f'{request["config"]}: expected figures, got\n{log.read_text()[-3000:]}')
    return json.loads((folder / 'answer.json').read_text())


def draw(root: Path, cfg: Config, size: tuple[int, int]) -> None:
    """A few photographs of VOC's layout, with masks and tags, in each list that the config names."""
    generator = np.random.default_rng(0)
    names = [f'2007_{i:06d}' for i in range(DRAWN)]
    inner = cfg.train_dataloader.dataset.dataset
    classes = list((inner.get('metainfo') or {}).get('classes') or PascalVOCDataset.METAINFO['classes'])
    known = list(PascalVOCDataset.METAINFO['classes'])
    ids = [known.index(name) for name in classes if name != 'background'][:2]
    for folder in ('JPEGImages', 'SegmentationClass', 'SegmentationClassAug', 'ImageSets/Segmentation', 'masks'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    width, height = size
    for name in names:
        coarse = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.BICUBIC).save(root / 'JPEGImages' / f'{name}.jpg')
        cells = generator.integers(0, len(ids) + 2, (4, 4))
        # Pseudo masks have the ids of the experiment's classes, the others those of VOC.
        for folder, own in (
            ('masks', range(1, len(ids) + 1)),
            ('SegmentationClass', ids),
            ('SegmentationClassAug', ids),
        ):
            values = np.array([0, *own, 255], dtype=np.uint8)[cells]
            Image.fromarray(values).resize(size, Image.NEAREST).save(root / folder / f'{name}.png')
    for path in lists_of(cfg.to_dict()) | {'ImageSets/Segmentation/train.txt'}:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text('\n'.join(names) + '\n')
    tags = np.isin(np.arange(1, 21), ids).astype(np.float32)
    np.save(root / 'cls_labels.npy', dict.fromkeys(names, tags))
    (root / 'masks/manifest.json').write_text(json.dumps(dict(classes=classes)))
    if 'mask_dir' in cfg.train_dataloader.dataset:
        cfg.train_dataloader.dataset.mask_dir = str(root / 'masks')


def lists_of(value) -> set[str]:
    """Every `ann_file` in a config."""
    if isinstance(value, dict):
        own = {value['ann_file']} if isinstance(value.get('ann_file'), str) else set()
        return own.union(*map(lists_of, value.values()))
    return set().union(*map(lists_of, value)) if isinstance(value, list | tuple) else set()


def seconds_of(work: Callable[[], object]) -> float:
    """The median of a few calls, after one that is not counted."""

    def once() -> float:
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began

    first, times = once(), []
    if first > ENOUGH:
        return first
    while len(times) < MEASURED and sum(times) < ENOUGH:
        times.append(once())
    return float(np.median(times))


def peak_memory() -> int:
    """The most that the GPU has given, or without one that this process has had, in bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path('/proc/self/status')
    if not status.is_file():
        return 0
    lines = status.read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith('VmHWM')))


def along(sizes: tuple[int, ...], values: list[float], batch: int) -> float:
    """A value for a batch, from one or two sizes on a line."""
    if len(sizes) == 1:
        return values[0]
    slope = max(values[1] - values[0], 0) / (sizes[1] - sizes[0])
    return values[1] + slope * (batch - sizes[1])


def items(dataset: dict, number: int) -> tuple[list[dict], float]:
    """So many items of a data set, and the seconds that each takes through the pipeline."""
    dataset = DATASETS.build(dataset)
    dataset[0]
    began = time.perf_counter()
    found = [dataset[i % len(dataset)] for i in range(number)]
    return found, (time.perf_counter() - began) / number


def measure(request: dict) -> dict:
    """What one network takes.

    steps             seconds of a training step: during the warm-up, if there is one, and after it
    load              seconds of an image through the training pipeline
    predict_load      the same of the test pipeline
    memory            bytes, of training;  predict_memory  of predicting
    save              seconds of writing a checkpoint of checkpoint_bytes;  weights_bytes  without optimiser
    start             seconds from starting a tool to its first step, without reading the data set
    predict           seconds of an image that is predicted and measured
    masks             by refiner, seconds of an image whose mask is made
    entropy           seconds of an image whose layer entropies are measured
    """
    cfg = load_config(request['config'])
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    cfg.pretty_text  # noqa: B018  every tool lays it out once for the log and once for its folder
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).to(get_device())
    attention = getattr(model, 'attention_loss', None)
    if attention is not None and not getattr(attention, 'measured', True):
        attention.weigh_layers(torch.arange(model.backbone.num_layers))
    answer = dict(start=time.time() - request['began'], **measure_training(cfg, model, request['gpus']))
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    model.eval()
    with torch.no_grad():
        if request['kind'] == 'stage 1':
            answer |= measure_cams(cfg, model, request)
        elif request['kind'] == 'stage 2':
            answer |= measure_predictions(cfg, model, request['tta'])
    return dict(answer, predict_memory=peak_memory())


def measure_training(cfg: Config, model: torch.nn.Module, gpus: int) -> dict:
    batch = max(cfg.train_dataloader.batch_size // gpus, 1)
    sizes = SMALL if batch > SMALL[-1] and get_device() == 'cpu' else (batch,)
    samples, load = items(cfg.train_dataloader.dataset, max(sizes))
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    model.train()
    attention = getattr(model, 'attention_loss', None)
    phases = [True, False] if attention is not None else [False]
    times, memory = {phase: [] for phase in phases}, []
    for size in sizes:
        data = pseudo_collate(samples[:size])
        for phase in phases:
            model.warm_up = phase
            # A copy, as the data preprocessor pads the masks that it is given.
            times[phase].append(seconds_of(lambda: model.train_step(deepcopy(data), optimizer)))  # noqa: B023
        memory.append(peak_memory())
    weights = model.state_dict()
    with tempfile.TemporaryDirectory() as folder:
        path, began = Path(folder, 'checkpoint.pth'), time.perf_counter()
        torch.save(dict(state_dict=weights, optimizer=optimizer.state_dict()), path)
        save, size = time.perf_counter() - began, path.stat().st_size
    return dict(
        steps=[along(sizes, seconds, batch) for seconds in times.values()],
        load=load,
        memory=int(along(sizes, memory, batch)),
        save=save,
        checkpoint_bytes=size,
        weights_bytes=sum(value.numel() * value.element_size() for value in weights.values()),
    )


def measure_cams(cfg: Config, model: torch.nn.Module, request: dict) -> dict:
    batch = min(cfg.test_dataloader.batch_size, SMALL[-1]) if get_device() == 'cpu' else cfg.test_dataloader.batch_size
    samples, load = items(cfg.test_dataloader.dataset, batch)
    data, metric = pseudo_collate(samples), CAMMetric()
    metric.dataset_meta = DATASETS.build(cfg.test_dataloader.dataset).metainfo
    fp16 = bool((cfg.get('test_cfg') or {}).get('fp16'))

    def predict() -> None:
        with autocast(enabled=fp16):
            predictions = model.test_step(deepcopy(data))
        metric.process({}, [sample.to_dict() for sample in predictions])

    answer = dict(predict_load=load, predict=seconds_of(predict) / batch)
    loader, refiners = mask_loader(cfg), dict(request['refiners'])
    samples, _ = items(loader['dataset'], min(batch, loader['batch_size']))
    inputs = model.data_preprocessor(pseudo_collate(samples))
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in request['walks'].items():
            checkpoint = Path(folder, 'net.pth')
            torch.save(dict(state_dict=MODELS.build(request['net']).state_dict()), checkpoint)
            refiners[name] = with_net(settings, request['net'], str(checkpoint))
        answer['masks'] = {}
        for name, changes in refiners.items():
            settings = model.settings_with(**changes)
            work = lambda: model.predict(**deepcopy(inputs), settings=settings)  # noqa: B023, E731
            answer['masks'][name] = seconds_of(work) / len(samples)
    if any(hook['type'] == 'aream_mm.LayerEntropyHook' for hook in cfg.get('custom_hooks') or []):
        samples, _ = items(cfg.train_dataloader.dataset, min(cfg.train_dataloader.batch_size, batch))
        seen = model.data_preprocessor(pseudo_collate(samples))
        tags = model.tags(seen['data_samples']).to(seen['inputs'].device)
        answer['entropy'] = seconds_of(lambda: entropy_of_layers(model, seen['inputs'], tags)) / len(samples)
    return answer


def measure_predictions(cfg: Config, model: torch.nn.Module, tta: bool) -> dict:
    dataset = cfg.test_dataloader.dataset
    if tta:
        dataset.pipeline = cfg.tta_pipeline
        merged = MODELS.build(dict(cfg.tta_model, module=cfg.model)).to(get_device()).eval()
    else:
        merged = model
    (sample,), load = items(dataset, 1)
    data = pseudo_collate([sample])
    return dict(predict_load=load, predict=seconds_of(lambda: merged.test_step(deepcopy(data))))


def main() -> None:
    request = Path(sys.argv[1])
    answer = measure(json.loads(request.read_text()))
    write_atomically(request.with_name('answer.json'), json.dumps(answer).encode())


if __name__ == '__main__':
    main()
