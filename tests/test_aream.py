"""Pair labels, affinity loss and layer entropy against plain loops, and what the loss pulls together and apart."""

import math

import pytest
import reference
import torch
from torch.testing import assert_close

from aream_mm.models import AReAMLoss
from aream_mm.models.aream import affinity_loss, layer_entropy, pair_counts, pair_labels
from aream_mm.models.attention import Attended

close = dict(rtol=1e-5, atol=1e-5)


@pytest.fixture
def masks():
    values = torch.tensor([0, 1, 3, 255])
    return values[torch.randint(4, (2, 2, 3))].repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)  # (2, 16, 24)


@pytest.fixture
def pairs(masks):
    return pair_labels(masks, (2, 3))


@pytest.fixture
def mean_logits():
    return 3 * torch.randn(4, 2, 6, 6)


@pytest.mark.parametrize('grid', [(2, 3), (4, 6), (5, 7)])
def test_pair_labels_equal_reference(grid):
    masks = torch.tensor([0, 1, 3, 255])[torch.randint(4, (2, 16, 24))]
    expected = [reference.pair_labels(mask.numpy(), grid).tolist() for mask in masks]
    assert pair_labels(masks, grid).tolist() == expected


def test_pair_labels_are_symmetric_with_one_on_the_diagonal(masks, pairs):
    assert torch.equal(pairs, pairs.transpose(1, 2))
    labels = masks[:, ::8, ::8].flatten(1)
    diagonal = pairs.diagonal(dim1=1, dim2=2)
    assert torch.equal(diagonal == 1, labels != 255)
    assert torch.equal(diagonal == 255, labels == 255)


def test_ignored_pixel_ignores_its_row_and_column():
    pairs = pair_labels(torch.tensor([[[0, 2], [255, 0]]]), (2, 2))
    assert pairs[0].tolist() == [[1, 0, 255, 1], [0, 1, 255, 0], [255, 255, 255, 255], [1, 0, 255, 1]]


def test_ignore_index_can_be_another():
    pairs = pair_labels(torch.tensor([[[9, 1], [255, 255]]]), (2, 2), ignore_index=9)
    assert pairs[0].tolist() == [[9, 9, 9, 9], [9, 1, 0, 0], [9, 0, 1, 1], [9, 0, 1, 1]]


def test_affinity_loss_equals_reference(mean_logits, pairs):
    assert {0, 1, 255} == set(pairs.unique().tolist())
    expected = reference.affinity_loss(mean_logits.double().numpy(), pairs.numpy())
    assert_close(affinity_loss(mean_logits, pairs).double(), torch.from_numpy(expected), **close)


def test_affinity_loss_gradient_equals_numeric_differences_in_float64(mean_logits, pairs):
    mean_logits = mean_logits[:2].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: affinity_loss(z, pairs), mean_logits)


def test_affinity_loss_falls_when_same_class_logits_rise_and_others_fall(mean_logits, pairs):
    loss = affinity_loss(mean_logits, pairs)
    assert (affinity_loss(mean_logits + (pairs == 1), pairs) < loss).all()
    assert (affinity_loss(mean_logits - (pairs == 0).float(), pairs) < loss).all()
    assert torch.equal(affinity_loss(mean_logits + (pairs == 255), pairs), loss)


def test_affinity_loss_of_perfect_logits_is_almost_zero(pairs):
    perfect = torch.where(pairs == 1, 50.0, -50.0)[None]
    assert_close(affinity_loss(perfect, pairs), torch.zeros(1), rtol=0, atol=1e-6)
    assert affinity_loss(-perfect, pairs) > 0.8


def test_layers_do_not_mix(mean_logits, pairs):
    singly = torch.cat([affinity_loss(mean_logits[i : i + 1], pairs) for i in range(4)])
    assert_close(affinity_loss(mean_logits, pairs), singly, rtol=1e-6, atol=1e-7)


def test_all_ignored_gives_zero_loss_and_zero_gradient(mean_logits):
    mean_logits.requires_grad_()
    loss = affinity_loss(mean_logits, torch.full((2, 6, 6), 255))
    loss.sum().backward()
    assert loss.tolist() == [0, 0, 0, 0]
    assert mean_logits.grad.abs().max() == 0


def test_losses_of_parts_add_up_to_the_loss_of_the_batch(mean_logits, pairs):
    counts = pair_counts(pairs)
    parts = [affinity_loss(mean_logits[:, i : i + 1], pairs[i : i + 1], counts) for i in range(2)]
    assert_close(sum(parts), affinity_loss(mean_logits, pairs), **close)
    assert (sum(parts) - sum(affinity_loss(mean_logits[:, i : i + 1], pairs[i : i + 1]) for i in range(2))).all()


@pytest.mark.parametrize('label', [0, 1])
def test_one_kind_of_pair_alone_is_finite(mean_logits, label):
    pairs = torch.full((2, 6, 6), label)
    expected = reference.affinity_loss(mean_logits.double().numpy(), pairs.numpy())
    assert_close(affinity_loss(mean_logits, pairs).double(), torch.from_numpy(expected), **close)


def test_affinity_loss_is_float32_for_half_precision_logits(mean_logits, pairs):
    loss = affinity_loss(mean_logits.bfloat16(), pairs)
    assert_close(loss, affinity_loss(mean_logits.bfloat16().float(), pairs), rtol=0, atol=0)


def test_mismatch_of_pairs_and_logits_is_explained(mean_logits):
    with pytest.raises(ValueError, match=r'expected pairs of shape \(2, 6, 6\).*got \(2, 4, 4\)'):
        affinity_loss(mean_logits, torch.ones(2, 4, 4))


def test_layer_entropy_equals_reference():
    cam, affinity = 5 * torch.rand(2, 3, 2, 4), torch.rand(4, 2, 8, 8).softmax(dim=-1)
    tags = torch.tensor([[1, 0, 1], [0, 1, 0]])
    expected = reference.layer_entropy(cam.numpy(), affinity.numpy(), tags.numpy())
    entropy = layer_entropy(cam, affinity, tags)
    assert entropy.dtype == torch.float64
    assert_close(entropy, torch.from_numpy(expected), **close)


def test_uniform_affinity_has_the_entropy_of_the_patches():
    entropy = layer_entropy(torch.rand(2, 3, 4, 8), torch.full((2, 2, 32, 32), 1 / 32), torch.ones(2, 3))
    assert_close(entropy, torch.full((2,), 5.0).double(), **close)


def test_one_hot_attention_keeps_a_peak_that_uniform_attention_loses():
    peak = torch.zeros(1, 1, 4, 4)
    peak[0, 0, 1, 2] = 100
    affinity = torch.stack([torch.eye(16), torch.full((16, 16), 1 / 16)])[:, None]
    concentrated, spread = layer_entropy(peak, affinity, torch.ones(1, 1)).tolist()
    assert concentrated == pytest.approx(0, abs=1e-6)
    assert spread == pytest.approx(math.log2(16), abs=1e-6)


def test_absent_classes_carry_no_entropy():
    cam, affinity = torch.rand(1, 2, 2, 3), torch.eye(6).view(1, 1, 6, 6)
    tags = torch.tensor([[1, 0]])
    entropy = layer_entropy(cam, affinity, tags)
    cam[:, 1] = 100 * torch.rand(1, 2, 3)
    assert_close(layer_entropy(cam, affinity, tags), entropy, rtol=0, atol=0)


def attended(mean_logits):
    """What a network of 2 × 3 patches made of the batch, as far as the loss reads it."""
    return Attended(None, torch.empty(2, 1, 2, 3), mean_logits=mean_logits)


def test_uniform_weights_give_the_plain_mean(mean_logits, masks, pairs):
    aream = AReAMLoss(layer_index=2, num_layers=6)
    expected = 0.1 * affinity_loss(mean_logits, pairs).mean()
    assert_close(aream(attended(mean_logits), masks), expected, rtol=1e-6, atol=1e-8)
    assert list(aream.logit_layers) == [2, 3, 4, 5]
    assert {layer: weight.item() for layer, weight in aream.label_affinity.items()} == {0: 0.5, 1: 0.5}


def test_entropy_weights_weigh_both_sides(mean_logits, masks, pairs):
    aream = AReAMLoss(layer_index=2, loss_weight=3.0, weights='entropy', num_layers=6)
    weights = torch.tensor([0.25, 1.0, 0.5, 0.0, 0.75, 0.125])
    aream.layer_weights.copy_(weights)
    expected = 3 * (weights[2:] * affinity_loss(mean_logits, pairs)).sum() / 4
    assert_close(aream(attended(mean_logits), masks), expected, rtol=1e-6, atol=1e-8)
    assert [weight.item() for weight in aream.label_affinity.values()] == [0.375, 0.0]


def test_measured_weights_travel_in_the_checkpoint():
    measured = AReAMLoss(layer_index=2, weights='entropy', num_layers=4)
    measured.layer_weights.copy_(torch.tensor([0.0, 0.5, 1.0, 0.25]))
    resumed = AReAMLoss(layer_index=2, weights='entropy', num_layers=4)
    resumed.load_state_dict(measured.state_dict())
    assert [weight.item() for weight in resumed.label_affinity.values()] == [0.5, 0.25]
    assert not AReAMLoss(layer_index=2, num_layers=4).state_dict()


@pytest.mark.parametrize('layer_index', [-1, 0, 6, 7])
def test_layer_index_outside_the_network_is_explained(layer_index):
    with pytest.raises(
        ValueError, match=rf'layer_index: expected a whole number in 1..5 \(6 layers\), got {layer_index}'
    ):
        AReAMLoss(layer_index=layer_index, num_layers=6)


def test_unknown_weights_are_explained():
    with pytest.raises(ValueError, match="weights: expected 'uniform' or 'entropy', got 'entropi'"):
        AReAMLoss(layer_index=2, weights='entropi')


def test_unmeasured_entropy_is_explained():
    aream = AReAMLoss(layer_index=2, weights='entropy', num_layers=6)
    with pytest.raises(RuntimeError, match='entropies.*measured.*loaded'):
        _ = aream.label_affinity
