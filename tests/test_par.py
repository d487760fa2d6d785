"""PAR against explicit loops over pixels and neighbours, and by its conservation laws."""

import pytest
import reference
import torch
from torch.testing import assert_close

from aream_mm.models import PAR

MASS = 1.01**10  # ten rounds with weights that sum to 1 + 0.01


@pytest.mark.parametrize('options', [dict(), dict(dilations=(1, 3), num_iters=2)])
@pytest.mark.parametrize('size', [(7, 9), (6, 4)])
def test_equals_reference(options, size):
    images, planes = torch.rand(2, 3, *size), torch.rand(2, 2, *size)
    expected = [
        reference.par(image.numpy(), plane.numpy(), **options) for image, plane in zip(images, planes, strict=True)
    ]
    assert_close(PAR(**options)(images, planes).double(), torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_affinity_sums_to_one_and_a_hundredth():
    affinity = PAR().affinity(torch.rand(2, 3, 9, 11))
    assert affinity.shape == (2, 48, 9, 11)
    assert_close(affinity.sum(dim=1), torch.full((2, 9, 11), 1.01), rtol=1e-5, atol=0)
    assert affinity.min() > 0


def test_sum_over_planes_is_kept():
    planes = torch.randn(2, 4, 17, 13).softmax(dim=1)
    refined = PAR()(torch.rand(2, 3, 17, 13), planes)
    assert_close(refined.sum(dim=1), torch.full((2, 17, 13), MASS), rtol=1e-4, atol=0)
    assert (refined - MASS * planes).abs().max() > 0.05


def test_constant_planes_stay_constant():
    values = torch.tensor([0.0, 0.3, -2.0, 7.0]).view(1, 4, 1, 1).expand(1, 4, 15, 21)
    assert_close(PAR()(torch.rand(1, 3, 15, 21), values), MASS * values, rtol=1e-4, atol=1e-6)


def test_image_of_one_colour_averages_the_neighbours():
    par = PAR(dilations=(1, 2), num_iters=1)
    planes = torch.rand(1, 2, 5, 7)
    images = torch.tensor([0.1, 0.7, 0.4]).view(1, 3, 1, 1).expand(1, 3, 5, 7)
    offsets = [(d * dy, d * dx) for d in (1, 2) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    distance = torch.tensor(offsets).float().norm(dim=1)
    position = (-((distance / distance.std() / 0.3) ** 2)).softmax(dim=0)
    expected = torch.zeros_like(planes)
    for y in range(5):
        for x in range(7):
            for (dy, dx), closeness in zip(offsets, position, strict=True):
                neighbour = planes[0, :, min(max(y + dy, 0), 4), min(max(x + dx, 0), 6)]
                expected[0, :, y, x] += (1 / 16 + 0.01 * closeness) * neighbour
    assert_close(par(images, planes), expected, rtol=1e-5, atol=1e-6)


def test_planes_do_not_cross_an_edge_of_colour():
    images = torch.zeros(1, 3, 16, 16)
    images[..., 8:] = 1
    planes = torch.zeros(1, 1, 16, 16)
    planes[..., 6:] = 1  # two columns too far
    refined = PAR()(images, planes)[0, 0] / MASS
    assert refined[:, 9:].min() > 0.9
    assert refined[:, :7].max() < 0.5


def test_images_and_planes_of_a_batch_are_independent():
    par, images, planes = PAR(), torch.rand(3, 3, 9, 12), torch.rand(3, 4, 9, 12)
    together = par(images, planes)
    assert_close(par(images[1:2], planes[1:2, 2:3]), together[1:2, 2:3], rtol=1e-6, atol=1e-6)


def test_is_linear_in_the_planes_and_its_gradient_the_adjoint():
    par, images = PAR(dilations=(1, 2), num_iters=3), torch.rand(1, 3, 6, 7)
    first, second, direction = torch.randn(3, 1, 2, 6, 7)
    first.requires_grad_()
    combined = par(images, 2 * first - 3 * second)
    assert_close(combined, 2 * par(images, first) - 3 * par(images, second), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(par(images, first), first, direction)
    assert_close((gradient * second).sum(), (direction * par(images, second)).sum(), rtol=1e-4, atol=1e-5)


def test_gradient_equals_numeric_differences_in_float64():
    planes = torch.rand(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    images, par = torch.rand(1, 3, 3, 4, dtype=torch.float64), PAR(dilations=(1,), num_iters=2).double()
    # PAR answers in float32, so the steps are large; it is linear, so large steps cost nothing.
    assert torch.autograd.gradcheck(lambda p: par(images, p).double(), planes, eps=0.1, atol=1e-4, rtol=1e-4)
