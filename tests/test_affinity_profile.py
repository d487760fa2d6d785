"""The figures of the affinity profile against loops, and the profile of a segmentor against its parts."""

import numpy as np
import pytest
import reference
import torch
from mmengine.structures import PixelData
from torch.testing import assert_close

from aream_mm.evaluation import AffinityProfile, threshold_sweep
from aream_mm.evaluation.affinity_profile import THRESHOLDS, effective_tokens, foreground_mass, token_similarity
from aream_mm.models.aream import layer_entropy

PATCHES = 16


@pytest.fixture
def affinity():
    """(3, 2, 16, 16): rows sum to less than 1, because class tokens have their share."""
    return 0.8 * torch.randn(3, 2, PATCHES, PATCHES).mul(2).softmax(dim=-1)


def test_effective_tokens_equal_reference(affinity):
    expected = [[reference.effective_tokens(image.numpy()) for image in layer] for layer in affinity]
    assert_close(effective_tokens(affinity), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ('rows', 'number'), [(torch.eye(PATCHES), 1), (torch.full((PATCHES, PATCHES), 1 / PATCHES), PATCHES)]
)
def test_effective_tokens_lie_between_one_and_all(rows, number):
    assert effective_tokens(rows).item() == pytest.approx(number)


def test_token_similarity_equals_reference():
    tokens = torch.randn(3, 2, PATCHES, 8)
    expected = [[reference.token_similarity(image.numpy()) for image in layer] for layer in tokens]
    assert_close(token_similarity(tokens), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_equal_tokens_have_similarity_one_and_orthogonal_ones_zero():
    assert token_similarity(torch.randn(1, 8).expand(PATCHES, 8)).item() == pytest.approx(1, abs=1e-6)
    assert token_similarity(torch.eye(PATCHES)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize('labels', ['mixed', 'all foreground', 'all background'])
def test_foreground_mass_equals_reference(affinity, labels):
    foreground = torch.rand(PATCHES) > 0.5 if labels == 'mixed' else torch.full((PATCHES,), labels == 'all foreground')
    known = torch.rand(PATCHES) > 0.2
    got = foreground_mass(affinity, foreground, known)
    expected = [[reference.foreground_mass(a.numpy(), foreground, known) for a in layer] for layer in affinity]
    assert_close(
        torch.stack(got, dim=-1).float(),
        torch.tensor(expected, dtype=torch.float32),
        rtol=1e-6,
        atol=1e-6,
        equal_nan=True,
    )


@pytest.fixture
def samples(golden, make_samples):
    samples = make_samples(golden['labels'])
    for sample, mask in zip(samples, golden['gt'], strict=True):
        sample.gt_sem_seg = PixelData(data=mask[None])
    return samples


def profile_of(model, images, samples):
    profile = AffinityProfile(model)
    profile.update(images, samples)
    return profile.compute()


def test_rows_are_each_layer_alone_and_the_means(build_toy, golden, samples):
    """The mIoU of a row is that of the segmentor whose test settings name the layers of the row."""
    model = build_toy()
    rows = dict({f'layer {i}': (i,) for i in range(6)})
    rows |= {'none': (), 'shallow mean': (0, 1, 2), 'deep mean': (3, 4, 5), 'all mean': None}
    profile = profile_of(model, golden['denormalized'], samples)
    assert set(profile) == set(rows)
    for row, layers in rows.items():
        with torch.no_grad():
            predictions = build_toy(test_cfg=dict(propagate_layers=layers)).predict(golden['denormalized'], samples)
        cams = [(prediction.cam_classes, prediction.cam.data) for prediction in predictions]
        expected = threshold_sweep(cams, golden['gt'], THRESHOLDS, 6)
        assert profile[row]['mIoU'] == pytest.approx(expected.max(), abs=1e-3)
        assert profile[row]['threshold'] == pytest.approx(THRESHOLDS[expected.argmax()].item())


def test_entropies_are_those_of_the_authors(toy_segmentor, golden, samples):
    profile = profile_of(toy_segmentor, golden['denormalized'], samples)
    entropies = torch.tensor([profile[f'layer {i}']['entropy'] for i in range(6)], dtype=torch.float64)
    assert_close(entropies, golden['entropy'], rtol=1e-5, atol=1e-5)


def test_means_have_the_entropy_of_the_mean_affinity(toy_segmentor, golden, samples):
    with torch.no_grad():
        attended = toy_segmentor.backbone(golden['denormalized'], affinity={3: 1 / 3, 4: 1 / 3, 5: 1 / 3})
    expected = layer_entropy(golden['relu_cam'], attended.patch_affinity[None], golden['labels'])
    profile = profile_of(toy_segmentor, golden['denormalized'], samples)
    assert profile['deep mean']['entropy'] == pytest.approx(expected.item(), abs=1e-5)


def test_batches_add_up(toy_segmentor, golden, samples):
    together = profile_of(toy_segmentor, golden['denormalized'], samples)
    profile = AffinityProfile(toy_segmentor)
    for image, sample in zip(golden['denormalized'], samples, strict=True):
        profile.update(image[None], [sample])
    for row, figures in profile.compute().items():
        assert figures == pytest.approx(together[row], abs=1e-5)


def test_without_masks_the_figures_that_need_them_are_missing(toy_segmentor, golden, make_samples):
    profile = profile_of(toy_segmentor, golden['denormalized'], make_samples(golden['labels']))
    assert set(profile['layer 0']) == {'entropy', 'effective_tokens', 'token_similarity'}
    assert profile['none'] == {}


def test_a_model_without_aream_has_no_shallow_and_deep_layers(build_toy, golden, samples):
    profile = profile_of(build_toy(attention_loss=None), golden['denormalized'], samples)
    assert list(profile) == ['none', *(f'layer {i}' for i in range(6)), 'all mean']


def test_settings_of_the_model_are_used(build_toy, golden, samples):
    plain = profile_of(build_toy(), golden['denormalized'], samples)
    settings = dict(scales=(0.5, 1.0), mirror=False, propagate_steps=2)
    changed = profile_of(build_toy(test_cfg=settings), golden['denormalized'], samples)
    assert not np.isclose(plain['layer 2']['mIoU'], changed['layer 2']['mIoU'])
