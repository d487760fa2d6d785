"""CAMs at every background threshold at once: pixels are counted in one pass, and all confusion matrices follow.

C classes without background, T thresholds. Ids are 0 background, 1..C; scores are in 0..1.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from aream_mm.masks import IGNORE_INDEX
from aream_mm.models.attention import at_least_float32


def count_pixels(classes: Tensor, scores: Tensor, mask: Tensor | None, thresholds: Tensor, num_classes: int) -> Tensor:
    """How many pixels of an image have each (truth, best class, number of thresholds below the best score).

    Args:
        classes: (K,) in 1..C; K may be 0.
        scores: (K, H, W) in 0..1.
        mask: (H, W) ground truth, 255 ignored; None where there is none.
        thresholds: (T,) background scores, rising.
        num_classes: C + 1, with background.

    Returns:
        (C + 2, C + 1, T + 1) int64. The last truth stands for ignored pixels and images without a mask; best class 0
        for an image without classes.

    Raises:
        ValueError: scores and mask differ in size, or an id is outside the classes.
    """
    if mask is None:
        truth = classes.new_full(scores.shape[1:], num_classes)
    else:
        if scores.shape[1:] != mask.shape:
            raise ValueError(f'expected scores of size {tuple(mask.shape)}, got {tuple(scores.shape[1:])}')
        ignored = mask == IGNORE_INDEX
        truth = mask.clamp(max=num_classes).long()
        if truth.numel() and (truth.min() < 0 or (truth == num_classes).sum() != ignored.sum()):
            wrong = mask[~ignored & ((mask < 0) | (mask >= num_classes))].unique().tolist()
            raise ValueError(f'expected masks of 0..{num_classes - 1} or 255, got {wrong}')
    if len(classes) and not (1 <= classes.min() and classes.max() < num_classes):
        raise ValueError(f'expected classes in 1..{num_classes - 1}, got {classes.tolist()}')
    bins = len(thresholds) + 1
    counts = classes.new_zeros(num_classes + 1, num_classes, bins)
    if len(classes):
        score, best = at_least_float32(scores).max(dim=0)
        # Compared in the precision of the scores, as a background plane among them would be.
        index = (truth * len(classes) + best) * bins + torch.bucketize(score, thresholds.to(score))
        shape = (num_classes + 1, len(classes), bins)
        counts[:, classes] = torch.bincount(index.flatten(), minlength=shape[0] * shape[1] * shape[2]).view(shape)
    else:
        counts[:, 0, 0] = torch.bincount(truth.flatten(), minlength=num_classes + 1)
    return counts


def confusion_matrices(counts: Tensor) -> Tensor:
    """Counts of `count_pixels` → (T, C + 1, C + 1) int64 of (threshold, truth, mask).

    At the t-th threshold a pixel is its best class if its score exceeds more than t of them, else background.
    """
    known = counts[:-1]  # (truth, best class, T + 1)
    confusion = known.flip(-1).cumsum(dim=-1).flip(-1)[..., 1:].permute(2, 0, 1).clone()  # (T, truth, best class)
    confusion[:, :, 0] = 0
    confusion[:, :, 0] = known.sum(dim=(1, 2)) - confusion.sum(dim=2)
    return confusion


def intersection_over_union(confusion: Tensor) -> Tensor:
    """(…, C + 1, C + 1) of (truth, mask) → IoU of each class (…, C + 1) in percent; nan where no pixel has it."""
    hits = confusion.diagonal(dim1=-2, dim2=-1).double()
    return 100 * hits / (confusion.sum(dim=-1) + confusion.sum(dim=-2) - hits)


def threshold_sweep(
    cams: Iterable[tuple[Tensor, Tensor]], masks: Iterable[Tensor], thresholds: Sequence[float], num_classes: int
) -> np.ndarray:
    """mIoU in percent at each threshold, in the order of `thresholds`, in one pass over the pixels.

    A pixel is its best class where that scores above the threshold, else background. A class that no pixel has, in
    truth or in the masks, does not count, as in mmseg.

    Args:
        cams: (classes, scores) of each image, masks: its ground truth (H, W), both as `count_pixels` takes them.
        thresholds: T background scores.
        num_classes: C + 1, with background.

    Raises:
        ValueError: scores and mask differ in size, an id is outside the classes, or CAMs and masks differ in number.

    >>> scores, mask = torch.tensor([[[0.2, 0.6, 0.9]]]), torch.tensor([[0, 1, 1]])  # (1, 1, 3) of class 1, (1, 3)
    >>> threshold_sweep([([1], scores)], [mask], [0.1, 0.5, 0.7], num_classes=2).round(1).tolist()
    [33.3, 100.0, 50.0]
    """
    ascending, order = torch.as_tensor(np.asarray(thresholds), dtype=torch.float64).sort()
    counts = 0
    for (classes, scores), mask in zip(cams, masks, strict=True):
        image = (torch.as_tensor(classes, dtype=torch.int64), torch.as_tensor(scores), torch.as_tensor(mask))
        counts = counts + count_pixels(*image, ascending, num_classes)
    miou = intersection_over_union(confusion_matrices(counts)).nanmean(dim=-1)
    return miou[order.argsort()].numpy()
