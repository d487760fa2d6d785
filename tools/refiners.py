r"""Masks before and after refiners: mIoU, and what each costs per image.

    python tools/refiners.py configs/aream_vit_voc.py work_dirs/aream_vit_voc/epoch_60.pth --images 40 \
        --out work_dirs/bench/refiners.json
    python tools/refiners.py CONFIG CHECKPOINT --scales 0.5 1 --refiners \
        '{"type": "aream_mm.PAR"}' '{"type": "aream_mm.DenseCRF", "label_confidence": 0.7, "bilateral_sxy": 50}'
    python tools/refiners.py CONFIG CHECKPOINT --backgrounds 0.4 0.45 0.5 0.55
    python tools/refiners.py CONFIG CHECKPOINT --scales 1 --refiners '{"type": "aream_mm.RandomWalk", "steps": 16,
        "net": "configs/affinity_net_animals.py", "checkpoint": "work_dirs/affinity_net_animals/iter_500.pth"}'

The config is one of stage 1: images, tags and masks are those of its val_dataloader, the settings those of its
model.test_cfg. The network is run once per image and all refiners get its CAM, at each background score: the best one
is another for each. Or it is one of stage 2: refined is what the network predicts for the images of its
pseudo_mask_dataloader that have a true mask, restricted to their tags. The `net` of a random walk may be the path of
the config that trains it.

`change` is that from the row 'none' of the same score. `seconds` per image are those from the CAM, or prediction, to
the mask, in batches as the loader has them. Those of the row 'none' are in all others. The network's own stand above
the table.
"""

import argparse
import json
from collections import defaultdict
from itertools import product
from pathlib import Path

import aream_mm.quiet  # noqa: F401

import torch
from arguments import checkpoint_file, config_file, count, refiner
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.device import get_device
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import ProgressBar
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from options import OptionAction, load_config
from prettytable import PrettyTable
from torch import Tensor
from torch.utils.benchmark.utils.timer import timer

from aream_mm.checkpoint import load_fitting_checkpoint
from aream_mm.engine.measuring import evenly_spread
from aream_mm.models.refined import RefinedEncoderDecoder, refine_samples
from aream_mm.models.segmentor import CAMSegmentor, RawCAM
from aream_mm.models.settings import RefineSettings, TestSettings
from aream_mm.registry import MODELS

DEFAULT = [dict(type='aream_mm.PAR'), dict(type='aream_mm.DenseCRF')]
Key = tuple[str, float | None, float | None]  # refiner, resolution, background score


def keys_of(refiners: list[dict], scales: list[float], backgrounds: list[float | None]) -> dict[Key, dict | None]:
    """The refiner of each row; without one first."""
    keys = {('none', None, background): None for background in backgrounds}
    for refine in refiners:
        options = ' '.join(f'{key}={value}' for key, value in refine.items() if key != 'type')
        name = f'{refine["type"].removeprefix("aream_mm.")} {options}'.strip()
        built = {**refine, 'net': load_config(net).model} if isinstance(net := refine.get('net'), str) else refine
        keys.update({(name, *setting): built for setting in product(scales, backgrounds)})
    return keys


def with_masks(dataset: BaseDataset, number: int | None) -> BaseDataset:
    """So many of the images that have a true mask, evenly spread."""
    known = [i for i in range(len(dataset)) if 'seg_map_path' in dataset.get_data_info(i)]
    if not known:
        raise ValueError(f'expected true masks of some of {len(dataset)} images to measure on, got none')
    return evenly_spread(dataset.get_subset(known), number)


class CAMs:
    """Stage 1, whose CAMs are refined."""

    def __init__(self, model: CAMSegmentor, cfg: Config, images: int | None) -> None:
        self.model = model
        self.scale, self.background = model.test_cfg.refine_scale, model.test_cfg.background
        dataset = with_masks(Runner.build_dataloader(cfg.val_dataloader).dataset, images)
        self.loader = Runner.build_dataloader({**cfg.val_dataloader, 'dataset': dataset})

    def settings(self, key: Key, refine: dict | None) -> TestSettings:
        _, scale, background = key
        return self.model.settings_with(
            refine=refine, refine_scale=self.scale if scale is None else scale, background=background
        )

    def run(self, inputs: Tensor, samples: list[SegDataSample]) -> RawCAM:
        return self.model.raw_cam(inputs, self.model.test_cfg)

    def refined(
        self, settings: TestSettings, raw: RawCAM, inputs: Tensor, samples: list[SegDataSample]
    ) -> list[SegDataSample]:
        return self.model.predict(inputs, samples, settings, raw)


class Predictions:
    """Stage 2, whose predictions for the images that it is trained on are refined."""

    scale, background = 1.0, None

    def __init__(self, model: RefinedEncoderDecoder, cfg: Config, images: int | None) -> None:
        self.model = model
        dataset = with_masks(MMENGINE_DATASETS.build(cfg.pseudo_mask_dataloader.dataset), images)
        dataset.pipeline.transforms.insert(-1, LoadAnnotations())
        sampler = dict(type='aream_mm.SizeBatchSampler')
        self.loader = Runner.build_dataloader(
            {**cfg.pseudo_mask_dataloader, 'dataset': dataset, 'batch_sampler': sampler}
        )

    def settings(self, key: Key, refine: dict | None) -> RefineSettings:
        _, scale, background = key
        if background is not None:
            raise ValueError(f'expected no background scores for a config of stage 2, got {background}')
        return self.model.settings_with(refine=refine, refine_scale=self.scale if scale is None else scale)

    def run(self, inputs: Tensor, samples: list[SegDataSample]) -> list[Tensor]:
        unrefined = self.model.predict(inputs, samples, self.model.settings_with(refine=None))
        return [sample.seg_logits.data.softmax(dim=0) for sample in unrefined]

    def refined(
        self, settings: RefineSettings, planes: list[Tensor], inputs: Tensor, samples: list[SegDataSample]
    ) -> list[SegDataSample]:
        if settings.refiner is not None:
            refine_samples(samples, planes, self.model.photographs(samples, inputs), settings)
        return samples


@torch.no_grad()
def measure(
    cfg: Config,
    checkpoint: str,
    refiners: list[dict],
    scales: list[float] | None,
    backgrounds: list[float] | None,
    images: int | None,
) -> tuple[dict[str, float], list[dict]]:
    """Images and the network's seconds for each, and one row for each refiner, resolution and background score."""
    model = MODELS.build(cfg.model)
    stages = {CAMSegmentor: CAMs, RefinedEncoderDecoder: Predictions}
    if type(model) not in stages:
        raise TypeError(f'expected a model of {", ".join(one.__name__ for one in stages)}, got {type(model).__name__}')
    stage = stages[type(model)](model, cfg, images)
    load_fitting_checkpoint(model, checkpoint, classes=stage.loader.dataset.metainfo['classes'])
    model.to(get_device()).eval()
    refiner_of = keys_of(refiners, scales or [stage.scale], backgrounds or [stage.background])
    settings = {key: stage.settings(key, refine) for key, refine in refiner_of.items()}
    metrics, seconds, dataset = {}, defaultdict(float), stage.loader.dataset
    for key in settings:
        metrics[key] = IoUMetric(iou_metrics=['mIoU'])
        metrics[key].dataset_meta = dataset.metainfo
    progress = ProgressBar(len(dataset))
    for batch in stage.loader:
        batch = model.data_preprocessor(batch)
        inputs, samples = batch['inputs'], batch['data_samples']
        if without := [sample.img_path for sample in samples if 'gt_sem_seg' not in sample]:
            raise ValueError(f'{without[0]}: expected a mask in the val_dataloader, got none')
        start = timer()  # waits for the device
        seen = stage.run(inputs, samples)
        seconds['network'] += timer() - start
        for key, changed in settings.items():
            start = timer()
            predictions = stage.refined(changed, seen, inputs, samples)
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
    return dict(images=len(dataset), network_seconds=seconds['network'] / len(dataset)), rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=config_file, help='config of either stage')
    parser.add_argument('checkpoint', type=checkpoint_file, help='its checkpoint')
    parser.add_argument('--refiners', nargs='+', type=refiner, default=DEFAULT, help='configs as JSON')
    parser.add_argument('--scales', nargs='+', type=float, help='default: test_cfg.refine_scale; of stage 2: 1')
    parser.add_argument('--backgrounds', nargs='+', type=float, help='scores; default: test_cfg.background')
    parser.add_argument('--images', type=count, help='measure on so many, evenly spread; default: all')
    parser.add_argument('--out', type=Path, help='JSON file for the figures')
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction, help='override settings, key=value')
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options, ('pseudo_mask_dataloader',))
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    network, rows = measure(cfg, args.checkpoint, args.refiners, args.scales, args.backgrounds, args.images)
    print(f'{network["images"]} images, {network["network_seconds"]:.3g} seconds of the network for each')
    table = PrettyTable(list(rows[0]), align='r', float_format='.3', none_format='')
    table.add_rows([row.values() for row in rows])
    print(table)
    if args.out:
        machine = dict(device=get_device(), threads=torch.get_num_threads(), torch=torch.__version__)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(dict(machine=machine, **network, rows=rows), indent=2))


if __name__ == '__main__':
    main()
