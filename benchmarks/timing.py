"""What the benchmarks share: variants of the same work run in turn, medians of ratios, peak memory, a table and JSON.

A benchmark gives `variants(setting)`: by name, functions that build the work to compare; 'floor' and 'plain' among them
are what the others are compared with.
"""

import argparse
import json
import platform
from collections.abc import Callable, Collection
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.registry import init_default_scope
from mmengine.utils import ProgressBar, track_iter_progress
from prettytable import PrettyTable
from torch.utils.benchmark import Timer

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
GROWTH = dict(size=(224, 384, 640), batch=(1, 4, 8), num_classes=(20, 80))


class Setting(NamedTuple):
    """size: of an image's longer side in pixels; batch: images; num_classes: C, without background."""

    size: int
    batch: int
    num_classes: int


Work = Callable[[], object]
Variants = Callable[[Setting], dict[str, Callable[[], Work]]]


def seconds(work: Work) -> float:
    """The time of one call, waiting for the device."""
    return Timer('work()', globals=dict(work=work), num_threads=torch.get_num_threads()).timeit(1).mean


def in_turn(works: dict[str, Work], runs: int) -> dict[str, list[float]]:
    """Seconds of each call, `runs` rounds of all of them after one that is not counted."""
    times, progress = {name: [] for name in works}, ProgressBar((runs + 1) * len(works))
    for _ in range(runs + 1):
        for name, work in works.items():
            times[name].append(seconds(work))
            progress.update()
    print()
    return {name: values[1:] for name, values in times.items()}


def resident(key: str) -> int:
    """VmRSS or VmHWM, the present and the highest memory of this process, in bytes."""
    status = Path('/proc/self/status').read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(key)))


def peak_of_this_process(variants: Variants, setting: Setting, name: str) -> float:
    """Bytes above the empty process that the work needs at most; called twice, for AdamW makes its state at the end."""
    init_default_scope('mmseg')
    empty = resident('VmRSS')
    work = variants(setting)[name]()
    for _ in range(2):
        work()
    return torch.cuda.max_memory_allocated() if DEVICE == 'cuda' else resident('VmHWM') - empty


def peak_memory(variants: Variants, setting: Setting, names: Collection[str]) -> dict[str, float | None]:
    """The same in a new process for each name; None where the system does not tell."""
    if DEVICE == 'cpu' and platform.system() != 'Linux':
        return dict.fromkeys(names)
    with get_context('spawn').Pool(1, maxtasksperchild=1) as pool:
        peaks = pool.imap(partial(peak_of_this_process, variants, setting), names)
        return dict(zip(names, track_iter_progress((peaks, len(names))), strict=True))


def median_ratio(times: list[float], others: list[float]) -> float:
    """Of runs side by side."""
    return median(a / b for a, b in zip(times, others, strict=True))


def measure(variants: Variants, setting: Setting, runs: int, memory: bool = False, plain: bool = True) -> list[dict]:
    """One row for each variant; without `plain`, for all but that."""
    built = {name: build() for name, build in variants(setting).items() if plain or name != 'plain'}
    times = in_turn(built, runs)
    peaks = peak_memory(variants, setting, list(times)) if memory else dict.fromkeys(times)
    rows = []
    for name, values in times.items():
        row = dict(setting._asdict(), variant=name, seconds=median(values))
        for other in ('floor', 'plain'):
            if other in times:
                row[f'time / {other}'] = median_ratio(values, times[other])
        row['peak MB'] = peaks[name] and peaks[name] / 1e6
        if peaks.get('floor'):
            row['peak / floor'] = peaks[name] / peaks['floor']
        rows.append(row)
    return rows


def growth(start: Setting) -> dict[str, list[Setting]]:
    """The settings along each axis, the sizes with one image."""
    return {
        'size': [Setting(size, 1, start.num_classes) for size in GROWTH['size']],
        'batch': [start._replace(batch=batch) for batch in GROWTH['batch']],
        'num_classes': [start._replace(num_classes=number) for number in GROWTH['num_classes']],
    }


def plot(grown: dict[str, list[dict]], path: Path) -> None:
    """Seconds an image of each variant along each axis."""
    figure = Figure(figsize=(5 * len(grown), 4), layout='constrained')
    planes = figure.subplots(1, len(grown))
    for (axis, rows), plane in zip(grown.items(), planes, strict=True):
        for name in dict.fromkeys(row['variant'] for row in rows):
            own = [row for row in rows if row['variant'] == name]
            plane.loglog([row[axis] for row in own], [row['seconds'] / row['batch'] for row in own], 'o-', label=name)
        plane.set(xlabel=axis.replace('_', ' '), ylabel='seconds per image')
        plane.set_xticks(values := sorted({row[axis] for row in rows}), labels=map(str, values))
        plane.yaxis.set_major_formatter('{x:.3g}')
        plane.yaxis.set_minor_formatter('{x:.2g}')
        plane.xaxis.minorticks_off()
    planes[0].legend()
    FigureCanvasAgg(figure).print_png(path)


def as_table(rows: list[dict]) -> PrettyTable:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = PrettyTable(columns, align='r')
    for row in rows:
        values = (row.get(column) for column in columns)
        table.add_row(['' if v is None else f'{v:.3g}' if isinstance(v, float) else v for v in values])
    return table


def write_figures(path: Path, **figures: object) -> None:
    """JSON of the figures and of what they were measured on."""
    machine = dict(device=DEVICE, threads=torch.get_num_threads(), torch=torch.__version__)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(machine=machine, **figures), indent=2))


def main(description: str, variants: Variants, default: Setting) -> None:
    """Measure at one setting, then with --growth along each of its three axes; print a table and write JSON."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=int, default=default.size, help='longer side of the images in pixels')
    parser.add_argument('--batch', type=int, default=default.batch, help='images')
    parser.add_argument('--num-classes', type=int, default=default.num_classes, help='classes, without background')
    parser.add_argument('--runs', type=int, default=5, help='rounds that are counted')
    parser.add_argument('--growth', action='store_true', help=f'measure all but plain also at {GROWTH}')
    parser.add_argument('--out', type=Path, help='JSON file for the figures; with --growth a plot beside it')
    args = parser.parse_args()
    init_default_scope('mmseg')
    torch.manual_seed(0)
    start = Setting(args.size, args.batch, args.num_classes)
    rows = measure(variants, start, args.runs, memory=True)
    print(as_table(rows))
    grown = {}
    if args.growth:
        for axis, settings in growth(start).items():
            grown[axis] = [row for setting in settings for row in measure(variants, setting, 2, plain=False)]
            print(as_table(grown[axis]))
    if args.out:
        write_figures(args.out, rows=rows, growth=grown)
        if grown:
            plot(grown, args.out.with_suffix('.png'))
