"""Photographs without a tag are negatives: what they train, what becomes of them, and what is said of the classes."""

import json

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmpretrain.evaluation import AveragePrecision as OfMMPretrain
from PIL import Image
from tag_table import write_tag_table
from test_engine import run_config
from torch.testing import assert_close
from toy_own import CLASSES, make_own, own_config
from toy_voc import ANIMALS, make_voc, voc_config

from aream_mm.datasets import ImageTagDataset, PseudoMaskDataset
from aream_mm.datasets.tags import read_tag_table
from aream_mm.evaluation import AffinityProfile, AveragePrecision, CAMMetric

REFINERS = [None, dict(type='aream_mm.PAR'), dict(type='aream_mm.DenseCRF')]


@pytest.fixture
def told(caplog):
    """What mmengine's logger, which does not propagate, is told."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


# The data set


def tagged(root, cells, classes=CLASSES, **arguments):
    """The photographs below `root`, sorted, with these tags in a table."""
    images = sorted(read_tag_table(root / 'tags.csv'))
    write_tag_table(root / 'tags.csv', dict(zip(images, cells, strict=True)))
    inner = own_config(root)
    inner['metainfo'] = dict(classes=classes)
    return ImageTagDataset(inner, str(root / 'tags.csv'), **arguments)


@pytest.fixture
def own(tmp_path):
    return make_own(tmp_path / 'own')


def warnings(told):
    return [record.getMessage() for record in told.records if 'cannot learn' in record.getMessage()]


def test_an_image_without_tags_stays_with_tags_of_zero(own):
    dataset = tagged(own, [['cat'], [], ['dog'], [], ['cat', 'dog'], ['dog']])
    scores = [dataset.get_data_info(i)['gt_score'].tolist() for i in range(len(dataset))]
    assert len(dataset) == 6 and scores.count([0, 0]) == 2


@pytest.mark.parametrize(
    ('cells', 'named', 'unnamed'),
    [
        ([['cat']] * 6, ['cat is in every image', 'dog is in none', 'an empty cell in the tag table'], []),
        ([['cat'], *[['cat', 'dog']] * 5], ['cat is in every image'], ['dog']),
        ([['cat'], *[[]] * 5], ['dog is in none'], ['cat is']),
    ],
)
def test_classes_in_every_image_or_in_none_are_named_once_with_what_to_do(own, told, cells, named, unnamed):
    tagged(own, cells)
    (text,) = warnings(told)
    assert all(part in text for part in ('add photographs', *named)) and not any(part in text for part in unnamed)


def test_nothing_is_said_where_each_class_can_be_learnt_or_nothing_is_trained(own, told):
    tagged(own, [['cat'], *[['dog']] * 5])
    tagged(own, [['cat']] * 6, test_mode=True)
    assert not warnings(told)


def test_what_every_image_has_that_is_not_left_out_is_named(own, told):
    tagged(own, [['cat'], ['cat', 'dog'], *[[]] * 4], drop_untagged=True)
    assert 'cat is in every image' in warnings(told)[0]


def test_without_background_an_image_without_tags_is_refused_by_name(own):
    message = r'since without background every pixel belongs to a class, for each of 6 images, missing for 1: 3'
    with pytest.raises(ValueError, match=message):
        tagged(own, [['cat'], [], *[['dog']] * 4], CLASSES[1:])
    assert len(tagged(own, [['cat'], [], *[['dog']] * 4], CLASSES[1:], drop_untagged=True)) == 5


# The segmentor

NEGATIVE = torch.zeros(5)


@pytest.fixture
def images(golden):
    return golden['denormalized']


def test_the_label_of_a_negative_is_ignored_and_no_other_changes(toy_segmentor, images, golden, label_masks):
    tags = torch.stack([golden['labels'][0], NEGATIVE])
    masks = label_masks(toy_segmentor, images, tags)
    assert (masks[1] == 255).all() and not (masks[0] == 255).all()
    assert torch.equal(masks[:1], label_masks(toy_segmentor, images[:1], tags[:1]))


@pytest.mark.parametrize('scores', [dict(), dict(low=None, high=None)])
def test_negatives_alone_train_the_classifier_and_no_attention(build_toy, images, make_samples, scores):
    background = {} if not scores else dict(test_cfg=dict(background=None))
    model = build_toy(train_cfg=scores, **background).train()
    losses = model.loss(images, make_samples(torch.zeros(2, 5)))
    assert losses['loss_aream'] == 0 and all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)
    assert model.head.class_map.weight.grad.any()


def test_a_negative_adds_nothing_to_the_loss_on_the_attention(toy_segmentor, images, golden, make_samples):
    alone = toy_segmentor.loss(images[:1], make_samples(golden['labels'][:1]))
    both = toy_segmentor.loss(images, make_samples(torch.stack([golden['labels'][0], NEGATIVE])))
    assert_close(both['loss_aream'], alone['loss_aream'], rtol=1e-5, atol=0)
    assert alone['loss_aream'] > 0 and both['loss_class'] != alone['loss_class']


def test_training_on_negatives_lowers_the_scores_of_all_classes(toy_segmentor, images, make_samples):
    optimizer = torch.optim.AdamW(toy_segmentor.parameters(), lr=1e-3)
    samples = make_samples(torch.zeros(2, 5))
    before = toy_segmentor.predict(images)
    for _ in range(4):
        optimizer.zero_grad()
        sum(toy_segmentor.loss(images, samples).values()).backward()
        optimizer.step()
    for old, new in zip(before, toy_segmentor.predict(images), strict=True):
        assert (new.pred_score < old.pred_score).all()


@pytest.mark.parametrize('refine', REFINERS, ids=str)
@pytest.mark.parametrize('background', [0.0, 0.4])
def test_a_negative_is_background_beside_others_and_alone(build_toy, images, golden, make_samples, refine, background):
    if refine and refine['type'].endswith('CRF'):
        pytest.importorskip('pydensecrf')
    model = build_toy(test_cfg=dict(background=background, refine=refine))
    for chosen in (slice(None), slice(1, 2)):
        tags = torch.stack([golden['labels'][0], NEGATIVE])[chosen]
        with torch.no_grad():
            *_, negative = model.predict(images[chosen], make_samples(tags))
        assert not negative.pred_sem_seg.data.any() and len(negative.cam_classes) == 0
        assert negative.seg_logits.data.isfinite().all()


# What is measured


def metric_of(model, images, samples):
    metric = CAMMetric()
    metric.dataset_meta = dict(classes=range(6))
    with torch.no_grad():
        metric.process({}, [sample.to_dict() for sample in model.predict(images, samples)])
    return metric.evaluate(len(samples))


def with_truth(samples, masks):
    for sample, mask in zip(samples, masks, strict=True):
        sample.gt_sem_seg = PixelData(data=mask[None])
    return samples


def test_the_mask_free_threshold_is_that_of_the_images_with_a_class(toy_segmentor, images, golden, make_samples):
    truth = golden['gt'].clone()
    truth[1] = 0
    tags = torch.stack([golden['labels'][0], NEGATIVE])
    alone = metric_of(toy_segmentor, images[:1], with_truth(make_samples(tags[:1]), truth[:1]))
    both = metric_of(toy_segmentor, images, with_truth(make_samples(tags), truth))
    assert both['cam/threshold_mask_free'] == alone['cam/threshold_mask_free']
    assert both['cam/mIoU_mask_free'] > alone['cam/mIoU_mask_free']  # the negative is background, and counts as that


def test_a_negative_adds_no_evidence_to_the_affinity_profile(toy_segmentor, images, golden, make_samples):
    tags = torch.stack([golden['labels'][0], NEGATIVE])
    profiles = []
    for count in (1, 2):
        profile = AffinityProfile(toy_segmentor)
        cams = profile.update(images[:count], with_truth(make_samples(tags[:count]), golden['gt'][:count]))
        profiles.append(profile.compute())
    assert cams[0].any() and not cams[1].any()
    for row in (f'layer {i}' for i in range(6)):
        assert profiles[1][row]['entropy'] == pytest.approx(profiles[0][row]['entropy'], rel=1e-6)


def test_a_class_that_no_image_has_is_left_out_of_the_mean_average_precision_and_named(told):
    score, tags = torch.rand(8, 3), torch.tensor([[1, 0, 0], [0, 0, 1]] * 4).float()
    metric = AveragePrecision()
    metric.dataset_meta = dict(classes=('background', 'cat', 'cow', 'dog'))
    metric.process({}, [dict(pred_score=s, gt_score=t) for s, t in zip(score, tags, strict=True)])
    measured = metric.evaluate(8)
    expected = OfMMPretrain.calculate(score, tags, None)
    assert measured['multi-label/mAP'] == pytest.approx((expected[0] + expected[2]).item() / 2)
    np.testing.assert_allclose(measured['multi-label/AP_classwise'], [expected[0], np.nan, expected[2]], rtol=1e-6)
    assert 'mAP leaves out what none of 8 images has: cow' in told.text


def test_where_each_class_occurs_the_average_precision_is_mmpretrains(told):
    score, tags = torch.rand(8, 3), torch.eye(3).repeat(3, 1)[:8]
    metric = AveragePrecision()
    metric.dataset_meta = dict(classes=('background', 'cat', 'cow', 'dog'))
    metric.process({}, [dict(pred_score=s, gt_score=t) for s, t in zip(score, tags, strict=True)])
    assert metric.evaluate(8)['multi-label/mAP'] == pytest.approx(OfMMPretrain.calculate(score, tags).item())
    assert 'leaves out' not in told.text


# Both stages


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """The work dir and the data of a run whose second and third image have no tag."""
    folder = tmp_path_factory.mktemp('negatives')
    root = make_voc(folder / 'voc')
    tags = np.load(root / 'cls_labels.npy', allow_pickle=True).item()
    for i in (1, 2):
        tags[f'2007_{i:06d}'] = np.zeros(20, np.float32)
    np.save(root / 'cls_labels.npy', tags)
    cfg = run_config(root, folder / 'work')
    Runner.from_cfg(cfg).train()
    return folder


def test_masks_of_negatives_are_written_as_background_and_stage_2_takes_them(finished):
    folder = finished / 'work/pseudo_masks'
    masks = [np.array(Image.open(folder / f'2007_{i:06d}.png')) for i in range(4)]
    assert [mask.any() for mask in masks] == [True, False, False, True]
    assert json.loads((folder / 'manifest.json').read_text())['images'] == 4
    dataset = PseudoMaskDataset(voc_config(finished / 'voc', metainfo=dict(classes=ANIMALS)), str(folder))
    assert len(dataset) == 4
