r"""CAM masks before and after refiners: mIoU, and what each costs a picture.

    python benchmarks/refiners.py configs/aream_vit_voc.py work_dirs/aream_vit_voc/epoch_60.pth --pictures 40 \
        --out work_dirs/bench/refiners.json
    python benchmarks/refiners.py CONFIG CHECKPOINT --scales 0.5 1 --refiners \
        '{"type": "aream_mm.PAR"}' '{"type": "aream_mm.DenseCRF", "label_confidence": 0.7, "bilateral_sxy": 50}'
    python benchmarks/refiners.py CONFIG CHECKPOINT --backgrounds 0.4 0.45 0.5 0.55

The config is one of stage 1; pictures, tags and masks are those of its val_dataloader, the settings those of its
model.test_cfg. The network is run once a picture and all refiners get its CAM, at each background score: the best one
is another for each. `change` is that from the row 'none' of the same score. `seconds` are those from the CAM to the
mask, a picture, in the batches of the val_dataloader; those of the row 'none' are in all others. The network's own
stand above the table.
"""

import argparse
import dataclasses
import json
from collections import defaultdict
from itertools import product
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import ProgressBar
from mmseg.evaluation import IoUMetric
from timing import DEVICE, as_table
from torch.utils.benchmark.utils.timer import timer

from aream_mm.checkpoint import load_fitting_checkpoint
from aream_mm.config import load_config
from aream_mm.engine.layer_entropy import evenly_spread
from aream_mm.models.settings import TestSettings
from aream_mm.registry import MODELS

DEFAULT = [dict(type='aream_mm.PAR'), dict(type='aream_mm.DenseCRF')]
Key = tuple[str, float | None, float | None]  # refiner, resolution, background score


def settings_of(
    own: TestSettings, refiners: list[dict], scales: list[float] | None, backgrounds: list[float] | None
) -> dict[Key, TestSettings]:
    """Of each row; without a refiner first."""
    changed = {}
    for background in backgrounds or [own.background]:
        changed['none', None, background] = dataclasses.replace(own, refine=None, background=background)
    for refine in refiners:
        options = ' '.join(f'{key}={value}' for key, value in refine.items() if key != 'type')
        name = f'{refine["type"].removeprefix("aream_mm.")} {options}'.strip()
        for scale, background in product(scales or [own.refine_scale], backgrounds or [own.background]):
            changed[name, scale, background] = dataclasses.replace(
                own, refine=refine, refine_scale=scale, background=background
            )
    return changed


@torch.no_grad()
def measure(
    cfg: Config,
    checkpoint: str,
    refiners: list[dict],
    scales: list[float] | None,
    backgrounds: list[float] | None,
    pictures: int | None,
) -> tuple[dict[str, float], list[dict]]:
    """Pictures and the network's seconds for each, and one row for each refiner, resolution and background score."""
    model = MODELS.build(cfg.model)
    load_fitting_checkpoint(model, checkpoint)
    model.to(DEVICE).eval()
    own, settings = model.test_cfg, settings_of(model.test_cfg, refiners, scales, backgrounds)
    dataset = evenly_spread(Runner.build_dataloader(cfg.val_dataloader).dataset, pictures)
    loader = Runner.build_dataloader({**cfg.val_dataloader, 'dataset': dataset})
    metrics, seconds = {}, defaultdict(float)
    for key in settings:
        metrics[key] = IoUMetric(iou_metrics=['mIoU'])
        metrics[key].dataset_meta = dataset.metainfo
    progress = ProgressBar(len(dataset))
    for batch in loader:
        batch = model.data_preprocessor(batch)
        inputs, samples = batch['inputs'], batch['data_samples']
        if without := [sample.img_path for sample in samples if 'gt_sem_seg' not in sample]:
            raise ValueError(f'{without[0]}: expected a mask in the val_dataloader, got none')
        start = timer()  # waits for the device
        raw = model.raw_cam(inputs, model.propagation, own.propagate_steps, own.scales, own.mirror)
        seconds['network'] += timer() - start
        for key, changed in settings.items():
            model.test_cfg = changed
            start = timer()
            predictions = model.predict_from(raw, inputs, samples)
            seconds[key] += timer() - start
            metrics[key].process({}, [prediction.to_dict() for prediction in predictions])
        for _ in samples:
            progress.update()
    print()
    rows, unrefined = [], {}
    for (name, scale, background), metric in metrics.items():
        miou = float(metric.evaluate(len(dataset))['mIoU'])
        change = miou - unrefined.setdefault(background, miou)
        spent = seconds[name, scale, background] / len(dataset)
        rows.append(dict(refiner=name, scale=scale, background=background, mIoU=miou, change=change, seconds=spent))
    return dict(pictures=len(dataset), network_seconds=seconds['network'] / len(dataset)), rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of stage 1')
    parser.add_argument('checkpoint', help='checkpoint of stage 1')
    parser.add_argument('--refiners', nargs='+', type=json.loads, default=DEFAULT, help='configs as JSON')
    parser.add_argument('--scales', nargs='+', type=float, help='resolutions; default: test_cfg.refine_scale')
    parser.add_argument('--backgrounds', nargs='+', type=float, help='scores; default: test_cfg.background')
    parser.add_argument('--pictures', type=int, help='measure on so many, evenly spread; default: all')
    parser.add_argument('--out', type=Path, help='JSON file for the figures')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings, key=value')
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    network, rows = measure(cfg, args.checkpoint, args.refiners, args.scales, args.backgrounds, args.pictures)
    print(f'{network["pictures"]} pictures, {network["network_seconds"]:.3g} seconds of the network for each')
    print(as_table(rows))
    if args.out:
        machine = dict(device=DEVICE, threads=torch.get_num_threads(), torch=torch.__version__)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(dict(machine=machine, **network, rows=rows), indent=2))


if __name__ == '__main__':
    main()
