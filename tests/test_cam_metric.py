"""CAMMetric against mmseg's IoUMetric at every threshold, and what it refuses."""

import logging

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from torch.testing import assert_close

from aream_mm.evaluation import CAMMetric
from aream_mm.evaluation.cam_metric import mask_free_threshold, otsu
from aream_mm.evaluation.sweep import confusion_matrices, count_pixels

CLASSES = ('background', 'cat', 'cow', 'dog', 'unseen')
BACKGROUND = 0.375


def make_prediction(number, mask=True):
    """Scores in sixteenths, so that many tie with a threshold; no image has 'unseen'."""
    classes = [[1], [3, 2], [], [1, 2, 3], [2]][number % 5]
    size = (6 + number, 5)
    sample = SegDataSample(metainfo=dict(img_path=f'{number}.jpg', background=BACKGROUND))
    sample.set_field(torch.tensor(classes, dtype=torch.int64), 'cam_classes')
    sample.set_field(torch.rand(len(classes), 3, 2), 'unpropagated_cam')
    sample.cam = PixelData(data=torch.randint(17, (len(classes), *size)) / 16)
    if mask:
        sample.gt_sem_seg = PixelData(data=torch.tensor([0, 1, 2, 3, 255])[torch.randint(5, (1, *size))])
    return sample.to_dict()


@pytest.fixture
def predictions():
    return [make_prediction(number) for number in range(5)]


def make_metric(thresholds=15):
    metric = CAMMetric(thresholds=thresholds)
    metric.dataset_meta = dict(classes=CLASSES)
    return metric


def measure(predictions, size=None, **arguments):
    metric = make_metric(**arguments)
    for prediction in predictions:
        metric.process({}, [prediction])
    return metric, metric.evaluate(len(predictions) if size is None else size)


def mmsegs_metrics(predictions, threshold):
    metric = IoUMetric(iou_metrics=['mIoU', 'mFscore'])
    metric.dataset_meta = dict(classes=CLASSES)
    for prediction in predictions:
        cam = prediction['cam']['data']
        planes = torch.cat([torch.full((1, *cam.shape[1:]), threshold), cam])
        ids = torch.cat([torch.zeros(1, dtype=torch.int64), prediction['cam_classes']])
        mask = ids[planes.argmax(dim=0)][None]
        metric.process({}, [dict(pred_sem_seg=dict(data=mask), gt_sem_seg=prediction['gt_sem_seg'])])
    return metric.evaluate(len(predictions))


def test_every_threshold_equals_mmsegs_metric(predictions):
    metric, _ = measure(predictions)
    curve = metric.curve
    assert len(curve.thresholds) == 15
    for threshold, miou in zip(curve.thresholds, curve.miou, strict=True):
        assert miou == pytest.approx(mmsegs_metrics(predictions, threshold)['mIoU'], abs=0.0051)
    assert np.isnan(curve.iou[:, CLASSES.index('unseen')]).all()


def test_equals_the_authors_sweep(golden, toy_segmentor, make_samples):
    metric = CAMMetric()
    metric.dataset_meta = dict(classes=range(6))
    samples = make_samples(golden['labels'])
    for sample, mask in zip(samples, golden['gt'], strict=True):
        sample.gt_sem_seg = PixelData(data=mask[None])
    with torch.no_grad():
        metric.process({}, [sample.to_dict() for sample in toy_segmentor.predict(golden['denormalized'], samples)])
    metric.evaluate(2)
    thresholds = golden['sweep_thresholds'].numpy()
    assert np.allclose(metric.curve.thresholds[: len(thresholds)], thresholds)
    assert_close(torch.from_numpy(metric.curve.miou[: len(thresholds)]), golden['sweep_miou'], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('thresholds', [15, 9])
def test_best_and_fixed_threshold_are_reported(predictions, thresholds):
    """The fixed one is on the grid of sixteenths and not on that of tenths."""
    metric, metrics = measure(predictions, thresholds=thresholds)
    grid = {number / (thresholds + 1) for number in range(1, thresholds + 1)} | {BACKGROUND}
    best = max(grid, key=lambda threshold: mmsegs_metrics(predictions, threshold)['mIoU'])
    for name, threshold in (('best', best), ('fixed', BACKGROUND)):
        expected = mmsegs_metrics(predictions, threshold)
        assert metrics[f'cam/threshold_{name}'] == pytest.approx(threshold, abs=1e-4)
        for figure in ('mIoU', 'mPrecision', 'mRecall', 'aAcc'):
            assert metrics[f'cam/{figure}_{name}'] == pytest.approx(expected[figure], abs=0.011)
    assert next(iter(metrics)) == 'cam/mIoU_best'
    assert metrics['cam/mIoU_mask_free'] in metric.curve.miou.round(2)


def test_every_class_is_in_the_log(predictions, caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, logger=logger.name):
        measure(predictions)
    logger.removeHandler(caplog.handler)
    for text in (*CLASSES, 'IoU best', 'Precision fixed', 'Recall mask-free', '| unseen     |      nan |'):
        assert text in caplog.text


def test_without_background_each_pixel_is_its_best_class(predictions):
    """The same scores as of classes whose ids start at 0, against mmseg's metric on their argmax."""
    metric = CAMMetric()
    mmsegs = IoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = mmsegs.dataset_meta = dict(classes=CLASSES[1:])
    tagged = [prediction for prediction in predictions if len(prediction['cam_classes'])]
    for prediction in tagged:
        prediction.update(background=None, cam_classes=prediction['cam_classes'] - 1)
        mask = prediction['cam_classes'][prediction['cam']['data'].argmax(dim=0)][None]
        truth = prediction['gt_sem_seg']
        truth['data'] = torch.where(truth['data'] == 0, 255, truth['data'].clamp(max=256) - (truth['data'] < 255) * 1)
        metric.process({}, [prediction])
        mmsegs.process({}, [dict(pred_sem_seg=dict(data=mask), gt_sem_seg=truth)])
    figures = metric.evaluate(len(tagged))
    assert figures['cam/mIoU_fixed'] == pytest.approx(mmsegs.evaluate(len(tagged))['mIoU'], abs=0.011)
    names = ('mIoU', 'mPrecision', 'mRecall', 'aAcc')
    assert set(figures) == {f'cam/{name}_fixed' for name in names} and metric.curve is None


def test_without_background_and_masks_nothing_is_measured(predictions):
    metric = CAMMetric()
    metric.dataset_meta = dict(classes=CLASSES[1:])
    for prediction in predictions[:2]:
        prediction.pop('gt_sem_seg')
        prediction.update(background=None, cam_classes=prediction['cam_classes'] - 1)
        metric.process({}, [prediction])
    assert metric.evaluate(2) == {}


def test_a_second_evaluation_starts_from_nothing(predictions):
    metric, first = measure(predictions)
    for prediction in predictions:
        metric.process({}, [prediction])
    assert metric.evaluate(len(predictions)) == first


def test_memory_does_not_grow_with_the_number_of_images(predictions):
    metric = make_metric()
    for _ in range(3):
        metric.process({}, predictions)
    shape = (2, len(CLASSES) + 1, len(CLASSES), 16)  # of the CAMs as propagated, and before
    assert metric.results == [] and metric.counts.shape == metric.last_counts.shape == shape


def test_counts_go_beyond_32_bits():
    classes, scores, mask = torch.tensor([1]), torch.rand(1, 4, 4), torch.randint(2, (4, 4))
    thresholds = torch.tensor([0.5], dtype=torch.float64)
    counts = count_pixels(classes, scores, mask, thresholds, 2)
    assert torch.equal(confusion_matrices(counts * 2**40), confusion_matrices(counts) * 2**40)


@pytest.mark.parametrize('size', [4, 6])
def test_more_or_fewer_predictions_than_images_are_refused(predictions, size):
    # One more than there are images is what a distributed sampler repeats, so two more are given.
    given = predictions if size == 6 else [*predictions, predictions[0]]
    with pytest.raises(RuntimeError, match=f'expected predictions for {size} images, got 5'):
        measure(given, size)


def test_a_prediction_without_a_cam_is_refused_by_name(predictions):
    del predictions[3]['cam']
    with pytest.raises(ValueError, match=r'expected a CAM in the prediction for 3.jpg'):
        measure(predictions)


def test_a_prediction_of_another_size_is_refused_by_name(predictions):
    predictions[3]['cam']['data'] = predictions[3]['cam']['data'][:, :-1]
    with pytest.raises(ValueError, match=r'3.jpg: expected scores of size \(9, 5\), got \(8, 5\)'):
        measure(predictions)


def test_ids_outside_the_classes_are_refused_by_name(predictions):
    predictions[1]['gt_sem_seg']['data'][0, 0, 0] = 7
    with pytest.raises(ValueError, match=r'1.jpg: expected masks of 0..4 or 255, got \[7\]'):
        measure(predictions)


def test_without_ground_truth_only_a_threshold_is_logged(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, logger=logger.name):
        metric, metrics = measure([make_prediction(number, mask=False) for number in range(5)])
    logger.removeHandler(caplog.handler)
    assert metrics == {} and metric.curve is None
    assert 'Threshold chosen without masks: 0.' in caplog.text


THRESHOLDS = torch.arange(1, 100, dtype=torch.float64) / 100


def histogram(scores):
    return torch.bincount(torch.bucketize(scores.flatten(), THRESHOLDS.float()), minlength=100)


def test_otsus_threshold_has_the_least_variance_within_the_groups():
    scores = torch.rand(40, 40).square()
    binned = ((scores.flatten().double() * 100).ceil() - 0.5) / 100  # the middle of the bin
    within = []
    for threshold in THRESHOLDS:
        groups = [binned[binned <= threshold], binned[binned > threshold]]
        within.append(sum(len(group) * group.var(unbiased=False).item() for group in groups if len(group)))
    assert otsu(histogram(scores), THRESHOLDS) == int(np.argmin(within))


@pytest.mark.parametrize(('low', 'high'), [(0.1, 0.5), (0.3, 0.9), (0.2, 0.4)])
def test_without_propagation_the_threshold_without_masks_parts_the_scores(low, high):
    scores = torch.where(torch.rand(50, 50) < 0.8, low, high) + 0.02 * torch.rand(50, 50)
    threshold = THRESHOLDS[mask_free_threshold(histogram(scores), histogram(scores), THRESHOLDS)]
    assert low + 0.02 <= threshold + 1e-9 and threshold <= high


def test_the_area_of_the_threshold_without_masks_lies_midway():
    before = torch.where(torch.rand(200, 200) < 0.9, 0.1, 0.8)  # a tenth is foreground
    after = torch.where(torch.rand(200, 200) < 0.7, 0.2, 0.8) + 0.1 * torch.rand(200, 200)  # three tenths are
    index = mask_free_threshold(histogram(after), histogram(before), THRESHOLDS)
    assert (after > THRESHOLDS[index]).float().mean().item() == pytest.approx(0.2, abs=0.02)
