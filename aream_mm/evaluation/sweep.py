"""The mIoU of CAMs at every background threshold, in one pass over the pixels."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

IGNORE_INDEX = 255


def threshold_sweep(
    cams: Iterable[tuple[Tensor, Tensor]], masks: Iterable[Tensor], thresholds: Sequence[float], num_classes: int
) -> np.ndarray:
    """mIoU in percent at each threshold, in the order of `thresholds`.

    A pixel is its best class where that scores above the threshold, else background. For each pixel the ground truth,
    the best class and the number of thresholds below its score are counted; sums over the last axis are the confusion
    matrices of every threshold at once. A class that no pixel has, in truth or in the masks, counts 0.

    Args:
        cams: (classes (K,) in 1..C, scores (K, H, W) in 0..1) of each picture; K may be 0.
        masks: (H, W) ground truth of each picture, 255 ignored.
        thresholds: T background scores.
        num_classes: C + 1, with background.

    Raises:
        ValueError: scores and mask differ in size, an id is outside the classes, or CAMs and masks differ in number.
    """
    thresholds = torch.as_tensor(np.asarray(thresholds), dtype=torch.float64)
    ascending, order = thresholds.sort()
    bins = len(thresholds) + 1
    counts = torch.zeros(num_classes * num_classes * bins, dtype=torch.int64)  # (truth, best class, thresholds below)
    for (classes, scores), mask in zip(cams, masks, strict=True):
        classes, scores, mask = torch.as_tensor(classes), torch.as_tensor(scores), torch.as_tensor(mask)
        if scores.shape[1:] != mask.shape:
            expected, got = tuple(mask.shape), tuple(scores.shape[1:])
            raise ValueError(f'threshold_sweep: expected scores of size {expected}, got {got}')
        known = mask != IGNORE_INDEX
        truth = mask[known].long()
        if len(classes) and not (1 <= classes.min() and classes.max() < num_classes):
            raise ValueError(f'threshold_sweep: expected classes in 1..{num_classes - 1}, got {classes.tolist()}')
        if len(truth) and not (0 <= truth.min() and truth.max() < num_classes):
            raise ValueError(f'threshold_sweep: expected masks of 0..{num_classes - 1} or 255, got {int(truth.max())}')
        if len(classes):
            score, best = scores[:, known].max(dim=0)
            # Compared in the precision of the scores, as a background plane among them would be.
            score = score.to(torch.promote_types(score.dtype, torch.float32))
            exceeded = torch.bucketize(score, ascending.to(score.dtype))  # thresholds strictly below the score
            index = (truth * num_classes + classes.long()[best]) * bins + exceeded
        else:
            index = truth * num_classes * bins
        counts += torch.bincount(index, minlength=len(counts))
    counts = counts.view(num_classes, num_classes, bins)

    # At the t-th threshold in rising order a pixel is foreground if it exceeds more than t of them.
    foreground = counts.flip(-1).cumsum(dim=-1).flip(-1)[..., 1:]  # (truth, class, T)
    hits = foreground.diagonal(dim1=0, dim2=1).T.double()  # (class, T)
    predicted = foreground.sum(dim=0).double()
    truth = counts.sum(dim=(1, 2)).double()[:, None]
    background = counts.sum(dim=-1, keepdim=True) - foreground  # (truth, class, T): pixels that fall below
    hits[0] += background[0].sum(dim=0)
    predicted[0] += background.sum(dim=(0, 1))
    union = truth + predicted - hits
    miou = (hits / union.clamp(min=1)).mean(dim=0) * 100
    return miou[order.argsort()].numpy()
