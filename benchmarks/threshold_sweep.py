"""The one-pass threshold sweep against mmseg's metric run once for each threshold: time per image, and the same mIoU.

    python benchmarks/threshold_sweep.py                     # on random CAMs of VOC's size
    python benchmarks/threshold_sweep.py CONFIG CHECKPOINT   # on the CAMs of the config's test data

Both are timed on every image in turn; medians are printed.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import ProgressBar
from mmseg.evaluation import IoUMetric
from torch import Tensor

from aream_mm.checkpoint import load_fitting_checkpoint
from aream_mm.evaluation.sweep import confusion_matrices, count_pixels, intersection_over_union
from aream_mm.masks import IGNORE_INDEX
from aream_mm.registry import MODELS

sys.path.append(str(Path(__file__).parents[1] / 'tools'))
from options import OptionAction, load_config  # noqa: E402

THRESHOLDS = torch.arange(1, 80, dtype=torch.float64) / 100  # those of the authors' program


def random_cams(number: int, num_classes: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Classes (K,), scores (K, H, W) and mask (H, W) of `number` images of one to three classes."""
    for i in range(number):
        count = 1 + i % 3
        mask = torch.randint(num_classes + 1, (375, 500))
        yield (
            torch.randperm(num_classes - 1)[:count] + 1,
            torch.rand(count, 375, 500),
            mask.where(mask < num_classes, 255),
        )


@torch.no_grad()
def predicted_cams(cfg, checkpoint: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The same of the config's test data."""
    model = MODELS.build(cfg.model)
    load_fitting_checkpoint(model, checkpoint)
    model.eval()
    for batch in Runner.build_dataloader(cfg.test_dataloader):
        for sample in model.test_step(batch):
            yield sample.cam_classes, sample.cam.data, sample.gt_sem_seg.data[0]


def one_pass_each(classes: Tensor, scores: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """mmseg's intersection and union at every threshold, (T, 2, C + 1)."""
    areas = []
    for threshold in THRESHOLDS.tolist():
        planes = torch.cat([scores.new_full((1, *mask.shape), threshold), scores])
        predicted = torch.cat([classes.new_zeros(1), classes])[planes.max(dim=0).indices]
        intersect, union, _, _ = IoUMetric.intersect_and_union(predicted, mask, num_classes, IGNORE_INDEX)
        areas.append(torch.stack([intersect, union]))
    return torch.stack(areas).double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', nargs='?', help='config of stage 1')
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file')
    parser.add_argument('--num-images', type=int, default=30, help='random CAMs')
    parser.add_argument('--out', type=Path, help='JSON file for the figures')
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction, help='override settings, key=value')
    args = parser.parse_args()
    if args.config:
        init_default_scope('mmseg')
        cfg = load_config(args.config, args.cfg_options)
        cams, number = predicted_cams(cfg, args.checkpoint), len(Runner.build_dataloader(cfg.test_dataloader).dataset)
        num_classes = cfg.model.head.num_classes + 1
    else:
        cams, number, num_classes = random_cams(args.num_images, 21), args.num_images, 21

    counts, areas, sweep_times, pass_times, progress = 0, 0, [], [], ProgressBar(number)
    for image in cams:
        start = perf_counter()
        counts = counts + count_pixels(*image, THRESHOLDS, num_classes)
        middle = perf_counter()
        areas = areas + one_pass_each(*image, num_classes)
        sweep_times.append(middle - start)
        pass_times.append(perf_counter() - middle)
        progress.update()
    swept = intersection_over_union(confusion_matrices(counts))
    passed = 100 * areas[:, 0] / areas[:, 1]
    figures = {
        'images': number,
        'one pass, ms per image': 1000 * float(np.median(sweep_times)),
        '79 passes, ms per image': 1000 * float(np.median(pass_times)),
        'ratio': float(np.median(np.array(pass_times) / np.array(sweep_times))),
        'largest difference in IoU': float((swept - passed).abs().nan_to_num().max()),
        'best mIoU': float(swept.nanmean(dim=1).max()),
        'its threshold': float(THRESHOLDS[swept.nanmean(dim=1).argmax()]),
    }
    print()
    for name, value in figures.items():
        print(f'{name}: {value:.4g}')
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(figures, indent=2))


if __name__ == '__main__':
    main()
