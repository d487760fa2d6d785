"""CAMHead: how it pools the class map over the image."""

import pytest
import torch

from aream_mm.models import CAMHead
from aream_mm.models.attention import Attended


def pooled(features, pooling, scale=1.0):
    """Class map and patch logits of a head whose class map is the features times the scale."""
    head = CAMHead(features.shape[1], features.shape[1], kernel_size=1, pooling=pooling)
    torch.nn.init.zeros_(head.class_map.bias)
    head.class_map.weight.data = scale * torch.eye(features.shape[1])[..., None, None]
    class_map, logits = head(Attended(None, features))
    assert list(logits) == ['patch']
    return class_map, logits['patch']


def test_log_mean_exp_is_that_of_its_name():
    class_map, logits = pooled(torch.randn(2, 3, 4, 5), 'log_mean_exp')
    expected = [[torch.log(sum(v.exp() for v in plane.flatten()) / 20) for plane in image] for image in class_map]
    torch.testing.assert_close(logits, torch.tensor(expected))


@pytest.mark.parametrize('scale', [1e-3, 1.0, 300.0])
def test_log_mean_exp_lies_between_mean_and_maximum_and_near_the_one_or_the_other(scale):
    features = torch.randn(2, 3, 4, 5)
    class_map, logits = pooled(features, 'log_mean_exp', scale)
    mean, highest = class_map.mean(dim=(2, 3)), class_map.amax(dim=(2, 3))
    torch.testing.assert_close(pooled(features, 'mean', scale)[1], mean)
    assert (mean <= logits).all() and (logits <= highest).all()
    if scale != 1:
        torch.testing.assert_close(logits, mean if scale < 1 else highest, rtol=0.02, atol=1e-5)


def test_where_a_class_is_on_a_few_patches_they_alone_learn_it():
    features = torch.zeros(1, 1, 4, 4)
    features[0, 0, 0, 0] = 9
    features.requires_grad_()
    for pooling, share in (('mean', 1 / 16), ('log_mean_exp', 0.99)):
        (gradient,) = torch.autograd.grad(pooled(features, pooling)[1].sum(), features)
        assert gradient.sum().item() == pytest.approx(1) and gradient[0, 0, 0, 0] == pytest.approx(share, abs=0.01)


def test_another_pooling_is_refused():
    with pytest.raises(ValueError, match="CAMHead.pooling: expected one of 'mean', 'log_mean_exp', got 'max'"):
        CAMHead(2, 2, pooling='max')
