"""Measures in the validation loop: mIoU of CAMs at every background threshold, average precision of the tags."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import all_gather_object, broadcast_object_list, get_rank, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmpretrain import evaluation
from mmseg.evaluation import IoUMetric
from prettytable import PrettyTable
from torch import Tensor

from aream_mm.checks import require_whole
from aream_mm.evaluation.sweep import confusion_matrices, count_pixels, intersection_over_union
from aream_mm.masks import IGNORE_INDEX
from aream_mm.registry import METRICS


class ThresholdCurve(NamedTuple):
    """What was measured at T thresholds."""

    thresholds: np.ndarray  # (T,) background scores, rising
    iou: np.ndarray  # (T, C + 1) of each class in percent; nan for a class that neither truth nor masks have
    miou: np.ndarray  # (T,) its mean
    chosen: dict[str, int]  # index of each threshold that is reported, by name


@METRICS.register_module()
class CAMMetric(BaseMetric):
    """Measures the CAMs of `CAMSegmentor`'s predictions at every background threshold in one pass.

    Three thresholds are reported: `best` is chosen on the ground truth itself, as the field quotes its seeds; `fixed`
    is the config's background score; `mask_free` is chosen from the CAMs alone, see `mask_free_threshold`. For each the
    log has IoU, precision and recall of every class, and the metrics are threshold, mIoU, mPrecision, mRecall and aAcc
    (the pixels that are right) in percent, the first of all `cam/mIoU_best`. A class that neither truth nor masks have
    does not count, as in mmseg.

    Without ground truth only the mask-free threshold is logged and there are no metrics, so that
    `CheckpointHook(save_best='auto')` goes by the metric listed next, such as mmpretrain's mAP. Where there is no
    background there is no threshold: `fixed` is measured alone, of each pixel's best class.

    Memory does not grow with the number of images. After `evaluate`, `curve` holds the mIoU at every threshold.

    Args:
        thresholds: number of thresholds, evenly spread over 0..1 without the ends; the config's is added.

    Raises:
        ValueError: a prediction without a CAM, or of another size than its ground truth; the image is named.
        RuntimeError: more or fewer predictions than images.
    """

    default_prefix = 'cam'

    def __init__(self, thresholds: int = 99, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        require_whole('CAMMetric', low=1, thresholds=thresholds)
        self.grid = np.arange(1, thresholds + 1) / (thresholds + 1)
        self.curve: ThresholdCurve | None = None
        self._reset()

    def _reset(self) -> None:
        self.background = self.thresholds = None  # the config's, and (T,) with it
        self.images = 0
        # Of all images but the last, and of the last: a distributed sampler may have repeated that one.
        self.counts = self.last_counts = 0  # (2, …): those of `count_pixels`, and of the CAMs before propagation

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            name = sample.get('img_path')
            if 'cam' not in sample:
                raise ValueError(f'CAMMetric: expected a CAM in the prediction for {name}, got {sorted(sample)}')
            first = int(sample['background'] is None)  # where nothing has id 0: ids are counted from 1 here
            if self.thresholds is None:
                self.background = sample['background']
                self.thresholds = torch.from_numpy(
                    np.array([-1.0]) if first else np.union1d(self.grid, self.background)
                )
            mask = sample['gt_sem_seg']['data'][0] if 'gt_sem_seg' in sample else None
            if first and mask is not None:
                mask = torch.where(mask == IGNORE_INDEX, mask, mask + 1)
            self.counts += self.last_counts
            self.images += 1
            number = first + len(self.dataset_meta['classes'])
            try:
                counts = [
                    count_pixels(sample['cam_classes'] + first, cam, truth, self.thresholds, number).cpu()
                    for cam, truth in ((sample['cam']['data'], mask), (sample['unpropagated_cam'], None))
                ]
            except ValueError as error:
                raise ValueError(f'CAMMetric: {name}: {error}') from error
            self.last_counts = torch.stack(counts)

    def evaluate(self, size: int) -> dict[str, float]:
        """Metrics over `size` images, from all processes."""
        # A DefaultSampler hands out image i to process i modulo their number, and fills up with repetitions; a
        # SizeBatchSampler repeats none and may give one process all.
        more = sum(all_gather_object(self.images)) > size
        repeated = more and self.images > 0 and (self.images - 1) * get_world_size() + get_rank() >= size
        counts = self.counts if repeated else self.counts + self.last_counts
        # Objects, because a process without images has no counts.
        parts = all_gather_object((self.images - repeated, counts))
        images, counts = (sum(part) for part in zip(*parts, strict=True))
        if images != size:
            raise RuntimeError(f'CAMMetric: expected predictions for {size} images, got {images}')
        metrics = [self.compute_metrics(counts) if is_main_process() else None]
        broadcast_object_list(metrics)
        self._reset()
        return {f'{self.prefix}/{name}': value for name, value in metrics[0].items()}

    def compute_metrics(self, counts: Tensor) -> dict[str, float]:
        """Counts of `count_pixels`, and those of the CAMs before propagation → metrics, without prefix."""
        logger = MMLogger.get_current_instance()
        thresholds = self.thresholds.numpy()
        scores, counts = counts[:, :, 1:].sum(dim=(1, 2)), counts[0]  # without images that have no class
        chosen, first = dict(fixed=0), int(self.background is None)
        if not first:
            mask_free = mask_free_threshold(*scores, self.thresholds)
            chosen = dict(fixed=int(np.searchsorted(thresholds, self.background)), mask_free=mask_free)
        if not counts[:-1].any():
            if not first:
                logger.info(f'Threshold chosen without masks: {thresholds[chosen["mask_free"]]:.3g}')
            return {}
        confusion = confusion_matrices(counts)[:, first:, first:]
        iou = intersection_over_union(confusion)
        miou = iou.nanmean(dim=-1)
        if not first:
            chosen = dict(best=int(miou.argmax()), **chosen)
            self.curve = ThresholdCurve(thresholds, iou.numpy(), miou.numpy(), chosen)

        metrics, columns = {}, {}
        for name, index in chosen.items():
            matrix = confusion[index].double()
            hits, masks, truth = matrix.diagonal(), matrix.sum(dim=0), matrix.sum(dim=1)
            shares = IoUMetric.total_area_to_metrics(hits, masks + truth - hits, masks, truth, ['mIoU', 'mFscore'])
            figures = {figure: 100 * shares[figure] for figure in ('IoU', 'Precision', 'Recall')}
            means = {f'm{figure}_{name}': round(float(np.nanmean(values)), 2) for figure, values in figures.items()}
            means[f'aAcc_{name}'] = round(100 * float(shares['aAcc']), 2)
            metrics |= means if first else {**means, f'threshold_{name}': round(float(thresholds[index]), 4)}
            columns |= {f'{figure} {name}': values.tolist() for figure, values in figures.items()}
        table = PrettyTable()
        table.add_column('class', self.dataset_meta['classes'], align='l')
        for title, values in columns.items():
            table.add_column(title.replace('_', '-'), [f'{value:.1f}' for value in values], align='r')
        at = f' at the thresholds { ({n: round(float(thresholds[i]), 4) for n, i in chosen.items()}) }'
        logger.info(f'CAMs{"" if first else at}\n{table}')
        return metrics


@METRICS.register_module()
class AveragePrecision(evaluation.AveragePrecision):
    """mmpretrain's, of each class and mAP at once. A class that no image has is nan, and mAP leaves it out."""

    def compute_metrics(self, results: list[dict]) -> dict:
        score, tags = (torch.stack([result[key] for result in results]) for key in ('pred_score', 'gt_score'))
        ap = self.calculate(score, tags, None).masked_fill(~tags.any(dim=0), torch.nan)
        if absent := [name for name, v in zip(self.dataset_meta['classes'][-len(ap) :], ap, strict=True) if v.isnan()]:
            print_log(f'mAP leaves out what none of {len(tags)} images has: {", ".join(absent)}', logger='current')
        return dict(mAP=ap.nanmean().item(), AP_classwise=ap.tolist())


def mask_free_threshold(after: Tensor, before: Tensor, thresholds: Tensor) -> int:
    """Index of a background threshold that is chosen from the CAMs alone.

    Otsu's threshold on the CAMs before propagation leaves out what propagation completes; after it, it takes in what
    propagation spills. The foreground area at the threshold returned lies midway between the two.

    Args:
        after: (T + 1,) number of pixels whose best score exceeds so many thresholds, over all images.
        before: (T + 1,) the same for the CAMs before propagation.
        thresholds: (T,) rising, in 0..1.
    """
    area_after, area_before = area(after), area(before)
    target = (area_after[otsu(after, thresholds)] + area_before[otsu(before, thresholds)]) / 2
    return int((area_after - target).abs().argmin())


def area(histogram: Tensor) -> Tensor:
    """Share of the scores above each threshold: (T + 1,) → (T,)."""
    above = histogram.double().flip(0).cumsum(0).flip(0)
    return above[1:] / above[0]


def otsu(histogram: Tensor, thresholds: Tensor) -> int:
    """Index of the threshold that parts the scores into the two groups that lie furthest apart: max w₀ w₁ (μ₁ − μ₀)².

    w are the shares of the scores below and above the threshold, μ their means. Arguments as for `mask_free_threshold`.
    """
    edges = F.pad(F.pad(thresholds, (1, 0), value=0), (0, 1), value=1)
    mass = histogram / histogram.sum() * (edges[1:] + edges[:-1]) / 2  # (T + 1,)
    above = area(histogram)
    below = 1 - above
    mean_below = mass.cumsum(0)[:-1] / below.clamp(min=1e-12)
    mean_above = mass.flip(0).cumsum(0).flip(0)[1:] / above.clamp(min=1e-12)
    return int((below * above * (mean_above - mean_below).square()).argmax())
