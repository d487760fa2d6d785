"""The one-pass threshold sweep against a whole pass for each threshold."""

import numpy as np
import pytest
import reference
import torch

from aream_mm.evaluation import threshold_sweep

NUM_CLASSES = 5


@pytest.fixture
def images():
    """Scores in eighths, so that many tie with a threshold; images of 0, 1, 2 and 4 classes; some pixels ignored."""
    classes = [torch.tensor(ids, dtype=torch.int64) for ids in ([], [3], [4, 2], [1, 2, 3, 4])]
    sizes = [(6, 5), (7, 9), (4, 4), (8, 3)]
    cams = [(ids, torch.randint(9, (len(ids), *size)) / 8) for ids, size in zip(classes, sizes, strict=True)]
    masks = [torch.tensor([0, 1, 2, 3, 4, 255])[torch.randint(6, size)] for size in sizes]
    return cams, masks


@pytest.mark.parametrize(
    'thresholds', [np.arange(0, 1.01, 0.125), np.arange(0.01, 0.8, 0.01), [0.5], [-1.0, 0.0, 1.0, 2.0]]
)
def test_equals_brute_force_at_every_threshold(images, thresholds):
    miou = threshold_sweep(*images, thresholds, NUM_CLASSES)
    assert miou == pytest.approx(reference.threshold_sweep(*images, thresholds, NUM_CLASSES), abs=1e-10)
    assert len(miou) == len(thresholds)


def test_equals_brute_force_on_continuous_scores(images):
    cams = [(classes, torch.rand_like(scores)) for classes, scores in images[0]]
    thresholds = np.linspace(0, 1, 41)
    expected = reference.threshold_sweep(cams, images[1], thresholds, NUM_CLASSES)
    assert threshold_sweep(cams, images[1], thresholds, NUM_CLASSES) == pytest.approx(expected, abs=1e-10)


def test_equals_brute_force_where_double_precision_scores_tie_with_thresholds(images):
    thresholds = np.arange(1, 80) * 0.01
    cams = [(classes, torch.randint(101, scores.shape).double() * 0.01) for classes, scores in images[0]]
    expected = reference.threshold_sweep(cams, images[1], thresholds, NUM_CLASSES)
    assert threshold_sweep(cams, images[1], thresholds, NUM_CLASSES) == pytest.approx(expected, abs=1e-10)


def test_unsorted_and_repeated_thresholds_keep_their_order(images):
    thresholds = [0.75, 0.125, 0.5, 0.125, 0.25]
    singly = [threshold_sweep(*images, [threshold], NUM_CLASSES)[0] for threshold in thresholds]
    assert len(set(singly)) == 4
    assert threshold_sweep(*images, thresholds, NUM_CLASSES).tolist() == singly


@pytest.mark.parametrize('score', [0.3, 0.5, 0.7])
def test_background_wins_ties(score):
    cams, masks = [([1], torch.full((1, 2, 2), score))], [torch.ones(2, 2, dtype=torch.int64)]
    below, tie, above = threshold_sweep(cams, masks, [score - 1e-4, score, score + 1e-4], num_classes=2)
    assert (below, tie, above) == (100, 0, 0)


def test_ignored_pixels_count_nowhere(images):
    cams, masks = images
    before = threshold_sweep(cams, masks, [0.2, 0.6], NUM_CLASSES)
    for (_, scores), mask in zip(cams, masks, strict=True):
        scores[:, mask == 255] = 1 - scores[:, mask == 255]
    assert np.array_equal(threshold_sweep(cams, masks, [0.2, 0.6], NUM_CLASSES), before)


def test_a_class_that_neither_truth_nor_masks_have_does_not_count(images):
    miou = threshold_sweep(*images, [0.2, 0.6], NUM_CLASSES)
    assert np.array_equal(threshold_sweep(*images, [0.2, 0.6], NUM_CLASSES + 3), miou)


def test_perfect_cams_reach_a_hundred(images):
    masks = [mask.where(mask != 255, 0) for mask in images[1]]
    ids = torch.arange(1, NUM_CLASSES)
    cams = [(ids, (mask == ids[:, None, None]).float()) for mask in masks]
    assert threshold_sweep(cams, masks, [0.5], NUM_CLASSES)[0] == pytest.approx(100)


def test_numpy_arrays_and_iterators_serve_as_well(images):
    cams, masks = images
    arrays = ((classes.numpy(), scores.numpy()) for classes, scores in cams)
    miou = threshold_sweep(arrays, (mask.numpy().astype(np.uint8) for mask in masks), [0.3, 0.6], NUM_CLASSES)
    assert np.array_equal(miou, threshold_sweep(cams, masks, [0.3, 0.6], NUM_CLASSES))


def test_scores_of_another_size_than_the_mask_are_refused(images):
    cams, masks = images
    masks[1] = masks[1][:, :-1]
    with pytest.raises(ValueError, match=r'expected scores of size \(7, 8\), got \(7, 9\)'):
        threshold_sweep(cams, masks, [0.5], NUM_CLASSES)


@pytest.mark.parametrize('kept', [(3, 4), (4, 3)])
def test_as_many_masks_as_cams_are_needed(images, kept):
    cams, masks = (items[:count] for items, count in zip(images, kept, strict=True))
    with pytest.raises(ValueError):
        threshold_sweep(cams, masks, [0.5], NUM_CLASSES)
