"""What each layer's affinity does to the CAM: one page of figures, curves and pictures, and a CSV.

    python tools/analysis/affinity_profile.py CONFIG CHECKPOINT --vs ANOTHER_CHECKPOINT

Measured on the config's test data with its test settings; figures that need masks are left out where there
are none, and where the classes have no background, whose share is measured.
With --vs, a second checkpoint of the same config stands beside the first: before and after AReAM, for example.
"""

import argparse
import base64
import csv
import io
import sys
from html import escape
from pathlib import Path

import aream_mm.quiet  # noqa: F401

import mmcv
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import ProgressBar
from mmengine.visualization import Visualizer
from torch import Tensor

from aream_mm.checkpoint import load_fitting_checkpoint
from aream_mm.datasets.images import read_image
from aream_mm.engine.measuring import evenly_spread
from aream_mm.evaluation.affinity_profile import AffinityProfile
from aream_mm.models.segmentor import CAMSegmentor
from aream_mm.registry import MODELS

sys.path.append(str(Path(__file__).parents[1]))
from arguments import checkpoint_file, config_file, count, folder  # noqa: E402
from options import OptionAction, load_config  # noqa: E402

FIGURES = {  # title, unit and what it says
    'mIoU': ('CAM mIoU', '%', 'of the CAM that this affinity alone propagates, at the threshold that is best for it'),
    'threshold': ('best threshold', '', 'background score at which that mIoU is reached'),
    'entropy': ('entropy', 'bits', 'of the class evidence after propagation: low is concentrated, high is spread out'),
    'effective_tokens': (
        'effective tokens',
        'patches',
        'to how many patches a patch attends: exp of the entropy of a row',
    ),
    'token_similarity': (
        'token similarity',
        'cosine',
        'of different patches after the layer: 1 is complete over-smoothing',
    ),
    'foreground_to_foreground': (
        'foreground → foreground',
        '',
        'share of their attention that object patches give to objects',
    ),
    'background_to_foreground': (
        'background → foreground',
        '',
        'share that background patches give to objects: what spills out',
    ),
}
COLOURS = ('tab:blue', 'tab:orange')
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .2em .8em; text-align: right; vertical-align: bottom; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left }
dt { font-weight: bold }
dd { margin: 0 0 .3em 1.5em }
img { max-width: 100% }
.change { color: #888; font-size: 85% }
.wide { overflow-x: auto }
.wide img { max-width: none }
"""


def measure(
    cfg: Config, name: str, model: CAMSegmentor, dataset: BaseDataset, examples: list[int]
) -> tuple[dict, dict[int, Tensor]]:
    """The profile of a checkpoint, and the CAMs (1 + G, H, W) of the items of the data set that serve as examples."""
    model.to('cuda' if torch.cuda.is_available() else 'cpu').eval()
    profile, drawn = AffinityProfile(model), {}
    loader = Runner.build_dataloader({**cfg.test_dataloader, 'batch_size': 1, 'dataset': dataset})
    print(f'{name}: {len(dataset)} images')
    progress = ProgressBar(len(dataset))
    for i, batch in enumerate(loader):
        batch = model.data_preprocessor(batch)
        (cam,) = profile.update(batch['inputs'], batch['data_samples'])
        if i in examples:
            drawn[i] = cam.amax(dim=1).cpu()
        progress.update()
    print()
    return profile.compute(), drawn


def write_csv(path: Path, profiles: dict[str, dict]) -> None:
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['checkpoint', 'affinity', *FIGURES])
        for name, profile in profiles.items():
            for row, figures in profile.items():
                writer.writerow([name, row, *(figures.get(figure, '') for figure in FIGURES)])


def as_image(figure: Figure) -> str:
    """The figure as an <img> that needs no file."""
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=90)
    return f'<img src="data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}">'


def draw_curves(profiles: dict[str, dict]) -> str:
    """Every figure over the layers, the means beside them."""
    measured = [figure for figure in FIGURES if any(figure in row for row in next(iter(profiles.values())).values())]
    figure = Figure(figsize=(12, 3.2 * -(-len(measured) // 2)), layout='constrained')
    for axes, name in zip(figure.subplots(-(-len(measured) // 2), 2, squeeze=False).flat, measured, strict=False):
        title, unit, _ = FIGURES[name]
        for (checkpoint, profile), colour in zip(profiles.items(), COLOURS, strict=False):
            rows = {row: values[name] for row, values in profile.items() if name in values}
            layers = [value for row, value in rows.items() if row.startswith('layer')]
            others = {row: value for row, value in rows.items() if not row.startswith('layer')}
            axes.plot(range(len(layers)), layers, 'o-', color=colour, label=checkpoint)
            axes.plot(range(len(layers), len(layers) + len(others)), list(others.values()), 'D', color=colour)
            axes.set_xticks(
                range(len(rows)), [*range(len(layers)), *(row.removesuffix(' mean') for row in others)], rotation=45
            )
        axes.set(title=f'{title} ({unit})' if unit else title, xlabel='layer')
        axes.grid(alpha=0.3)
    for axes in figure.axes[len(measured) :]:
        axes.remove()
    figure.axes[0].legend(fontsize=8)
    return as_image(figure)


def draw_examples(dataset: BaseDataset, rows: tuple[str, ...], drawn: dict[str, dict[int, Tensor]]) -> str:
    """A row for each photograph and checkpoint, a column for each affinity."""
    examples = list(next(iter(drawn.values())))
    count = len(examples) * len(drawn)
    figure = Figure(figsize=(1.5 * (1 + len(rows)), 1.45 * count), layout='constrained')
    grid = figure.subplots(count, 1 + len(rows), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, example in enumerate(examples):
        info = dataset.get_data_info(example)
        photograph = mmcv.imrescale(read_image(info['img_path'], dataset.value_range), (200, 200))
        tags = dataset.names(info['gt_score'])
        for which, (checkpoint, cams) in enumerate(drawn.items()):
            line = grid[number * len(drawn) + which]
            line[0].imshow(photograph)
            line[0].set_title(', '.join(tags) if which == 0 else '', fontsize=8)
            if len(drawn) > 1:
                line[0].text(
                    0, 1, checkpoint, transform=line[0].transAxes, fontsize=6, va='top', backgroundcolor='white'
                )
            for axes, row, cam in zip(line[1:], rows, cams[example], strict=True):
                axes.imshow(Visualizer.draw_featmap(cam[None], photograph))
                axes.set_title(row if which == 0 else '', fontsize=8)
    return as_image(figure)


def draw_table(profiles: dict[str, dict]) -> str:
    """The figures of the first checkpoint; with a second, its figures and the difference to the first."""
    first, *others = profiles.values()
    measured = [figure for figure in FIGURES if any(figure in row for row in first.values())]
    lines = [f'<tr><th>affinity</th>{"".join(f"<th>{FIGURES[figure][0]}</th>" for figure in measured)}</tr>']
    for row, figures in first.items():
        cells = [f'<td>{row}</td>']
        for figure in measured:
            text = f'{figures[figure]:.4g}' if figure in figures else ''
            for other in others:
                if figure in other[row]:
                    change = other[row][figure] - figures[figure]
                    text += f' → {other[row][figure]:.4g} <span class="change">({change:+.2g})</span>'
            cells.append(f'<td>{text}</td>')
        lines.append(f'<tr>{"".join(cells)}</tr>')
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def write_page(path: Path, config: str, dataset: BaseDataset, profiles: dict, drawn: dict) -> None:
    meanings = ''.join(f'<dt>{title}</dt><dd>{meaning}</dd>' for title, _, meaning in FIGURES.values())
    pictures = draw_examples(dataset, tuple(next(iter(profiles.values()))), drawn)
    path.write_text(f"""<!doctype html><meta charset="utf-8"><title>Affinity profile</title><style>{STYLE}</style>
<h1>Affinity profile</h1>
<p>{escape(config)}: {escape(' → '.join(profiles))}, on {len(dataset)} images.</p>
{draw_curves(profiles)}
<h2>Figures</h2>{draw_table(profiles)}<dl>{meanings}</dl>
<h2>CAMs, propagated by each affinity</h2><div class="wide">{pictures}</div>
""")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=config_file, help='config of stage 1')
    parser.add_argument('checkpoint', type=checkpoint_file, help='checkpoint file')
    parser.add_argument('--vs', metavar='CHECKPOINT', type=checkpoint_file, help='a second checkpoint to compare with')
    parser.add_argument('--out', type=folder, default=Path('work_dirs/affinity_profile'), help='folder of page and CSV')
    parser.add_argument('--num-images', type=count, help='measure on so many images, evenly spread; default: all')
    parser.add_argument('--examples', type=count, default=6, help='photographs on the page')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionAction,
        help='override settings, key=value; data_root=PATH moves every path of the data set',
    )
    args = parser.parse_args()
    init_default_scope('mmseg')
    cfg = load_config(args.config, args.cfg_options)
    checkpoints = [args.checkpoint, args.vs] if args.vs else [args.checkpoint]
    models = [MODELS.build(cfg.model) for _ in checkpoints]
    if not isinstance(models[0], CAMSegmentor):
        parser.error(f'config: expected one of stage 1, whose network makes CAMs, got a {type(models[0]).__name__}')
    dataset = evenly_spread(Runner.build_dataloader(cfg.test_dataloader).dataset, args.num_images)
    examples = np.linspace(0, len(dataset) - 1, min(args.examples, len(dataset)), dtype=int).tolist()
    for model, checkpoint in zip(models, checkpoints, strict=True):
        load_fitting_checkpoint(model, checkpoint, classes=dataset.metainfo['classes'])
    names = [Path(checkpoint).name for checkpoint in checkpoints]
    if len(set(names)) < len(names):  # epoch_4.pth of two runs
        names = checkpoints
    profiles, drawn = {}, {}
    for name, model in zip(names, models, strict=True):
        profiles[name], drawn[name] = measure(cfg, name, model, dataset, examples)
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(args.out / 'affinity_profile.csv', profiles)
    write_page(args.out / 'affinity_profile.html', args.config, dataset, profiles, drawn)
    print(f'Page:  {args.out / "affinity_profile.html"}')
    print(f'Table: {args.out / "affinity_profile.csv"}')


if __name__ == '__main__':
    main()
