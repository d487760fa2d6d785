r"""Masks before and after refiners: mIoU, and what each costs a picture.

    python benchmarks/refiners.py configs/aream_vit_voc.py work_dirs/aream_vit_voc/epoch_60.pth --pictures 40 \
        --out work_dirs/bench/refiners.json
    python benchmarks/refiners.py CONFIG CHECKPOINT --scales 0.5 1 --refiners \
        '{"type": "aream_mm.PAR"}' '{"type": "aream_mm.DenseCRF", "label_confidence": 0.7, "bilateral_sxy": 50}'
    python benchmarks/refiners.py CONFIG CHECKPOINT --backgrounds 0.4 0.45 0.5 0.55
    python benchmarks/refiners.py CONFIG CHECKPOINT --scales 1 --refiners '{"type": "aream_mm.RandomWalk", "steps": 16,
        "net": "configs/affinity_net_animals.py", "checkpoint": "work_dirs/affinity_net_animals/iter_500.pth"}'

The config is one of stage 1: pictures, tags and masks are those of its val_dataloader, the settings those of its
model.test_cfg. The network is run once a picture and all refiners get its CAM, at each background score: the best one
is another for each. Or it is one of stage 2 in rounds, such as configs/seg/deeplabv3plus_lite0_animals_cyclic.py, and
the checkpoint a round_<n>.pth: refined is what the network predicts for the pictures of train_cfg.masks that have a
true mask, restricted to their tags. The `net` of a random walk may be the path of the config that trains it.

`change` is that from the row 'none' of the same score. `seconds` are those from the CAM, or prediction, to the mask, a
picture, in batches as the loader has them; those of the row 'none' are in all others. The network's own stand above the
table.
"""

import argparse
import dataclasses
import json
from collections import defaultdict
from itertools import product
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import ProgressBar
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.evaluation import IoUMetric
from mmseg.models import BaseSegmentor
from mmseg.structures import SegDataSample
from timing import DEVICE, as_table
from torch import Tensor
from torch.utils.benchmark.utils.timer import timer

from aream_mm.checkpoint import load_fitting_checkpoint
from aream_mm.config import load_config
from aream_mm.engine.layer_entropy import evenly_spread
from aream_mm.engine.pseudo_masks import keep_to_tags
from aream_mm.models.refined_tta import Refinement
from aream_mm.models.segmentor import CAMSegmentor, RawCAM
from aream_mm.models.settings import TestSettings
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


class CAMs:
    """Stage 1, whose CAMs are refined."""

    def __init__(self, model: CAMSegmentor, cfg: Config, pictures: int | None) -> None:
        self.model, self.own = model, model.test_cfg
        self.scale, self.background = self.own.refine_scale, self.own.background
        dataset = evenly_spread(Runner.build_dataloader(cfg.val_dataloader).dataset, pictures)
        self.loader = Runner.build_dataloader({**cfg.val_dataloader, 'dataset': dataset})

    def settings(self, key: Key, refine: dict | None) -> TestSettings:
        _, scale, background = key
        return dataclasses.replace(self.own, refine=refine, refine_scale=scale or self.scale, background=background)

    def run(self, inputs: Tensor, samples: list[SegDataSample]) -> RawCAM:
        own = self.own
        return self.model.raw_cam(inputs, self.model.propagation, own.propagate_steps, own.scales, own.mirror)

    def refined(
        self, settings: TestSettings, raw: RawCAM, inputs: Tensor, samples: list[SegDataSample]
    ) -> list[SegDataSample]:
        self.model.test_cfg = settings
        return self.model.predict_from(raw, inputs, samples)


class Rounds:
    """Stage 2, whose predictions for the pictures that it is trained on are refined."""

    scale, background = 1.0, None

    def __init__(self, model: BaseSegmentor, cfg: Config, pictures: int | None) -> None:
        if cfg.train_cfg.type != 'aream_mm.CyclicTrainLoop':
            raise ValueError(
                'expected a config of stage 1, or one of stage 2 with a CyclicTrainLoop in train_cfg, got '
                f'{type(model).__name__} with {cfg.train_cfg.type}'
            )
        self.model = model
        dataset = MMENGINE_DATASETS.build(cfg.train_cfg.masks.dataloader.dataset)
        known = [i for i in range(len(dataset)) if 'seg_map_path' in dataset.get_data_info(i)]
        if not known:
            raise ValueError(f'expected true masks of some of {len(dataset)} pictures of train_cfg.masks, got none')
        dataset = evenly_spread(dataset.get_subset(known), pictures)
        dataset.pipeline.transforms.insert(-1, LoadAnnotations())
        sampler = dict(type='aream_mm.SizeBatchSampler')
        self.loader = Runner.build_dataloader(
            {**cfg.train_cfg.masks.dataloader, 'dataset': dataset, 'batch_sampler': sampler}
        )

    def settings(self, key: Key, refine: dict | None) -> Refinement | None:
        _, scale, background = key
        if background is not None:
            raise ValueError(
                f'expected no background scores, got {type(self.model).__name__} with background scores [{background}]'
            )
        return refine and Refinement(refine, scale).eval()

    def run(self, inputs: Tensor, samples: list[SegDataSample]) -> list[SegDataSample]:
        return self.model.predict(inputs, samples)

    def refined(
        self, settings: Refinement | None, seen: list[SegDataSample], inputs: Tensor, samples: list[SegDataSample]
    ) -> list[SegDataSample]:
        keep_to_tags(seen, self.loader.dataset.first_id, settings)
        return seen


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
    stage = (CAMs if isinstance(model, CAMSegmentor) else Rounds)(model, cfg, pictures)
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
    return dict(pictures=len(dataset), network_seconds=seconds['network'] / len(dataset)), rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of stage 1, or of stage 2 in rounds')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('--refiners', nargs='+', type=json.loads, default=DEFAULT, help='configs as JSON')
    parser.add_argument('--scales', nargs='+', type=float, help='default: test_cfg.refine_scale; of rounds: 1')
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
