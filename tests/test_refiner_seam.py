"""What every refiner keeps, ours and anybody's own, and what is refused by name."""

import re

import pytest
import torch
from mmengine.registry import init_default_scope
from torch.nn.functional import avg_pool2d
from torch.testing import assert_close

from aream_mm.models import Refiner
from aream_mm.registry import MODELS

NET = dict(
    type='aream_mm.AffinityNet',
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor', mean=[0] * 3, std=[255] * 3, bgr_to_rgb=True, seg_pad_val=255
    ),
    backbone=dict(type='aream_mm.TimmCNN', name='test_convnext', out_indices=(0, 1)),
    in_channels=(24, 32),
    channels=(4, 4),
)
OURS = dict(
    PAR=dict(dilations=(1, 2), num_iters=3),
    DenseCRF=dict(num_iters=2, workers=1),
    RandomWalk=dict(net=NET, steps=4),
    SegmentVote=dict(method='slic', n_segments=12),
)


class Blur(Refiner):
    """Somebody's own."""

    def refine(self, images, planes):
        return avg_pool2d(planes, 3, stride=1, padding=1, count_include_pad=False)


class Sharpen(Refiner):
    """Somebody's own, in which the classes of a pixel compete."""

    mixes_planes = True

    def __init__(self, power):
        super().__init__()
        self.power = power
        self.seen = []

    def refine(self, images, planes):
        self.seen.append(tuple(planes.shape))
        return (powers := planes**self.power) / powers.sum(dim=1, keepdim=True)


@pytest.fixture(scope='module', params=[*OURS, 'Blur'])
def refiner(request, tmp_path_factory):
    name, options = request.param, dict(OURS.get(request.param, {}))
    if name == 'Blur':
        return Blur()
    init_default_scope('mmseg')
    if name == 'RandomWalk':
        torch.manual_seed(0)
        options['checkpoint'] = str(tmp_path_factory.mktemp('walk') / 'affinity_net.pth')
        torch.save(dict(state_dict=MODELS.build(NET).state_dict()), options['checkpoint'])
    return MODELS.build(dict(type=f'aream_mm.{name}', **options)).eval()


@pytest.fixture
def batch():
    """Images and planes, of which the second image lacks two."""
    planes = torch.randn(2, 4, 24, 32).softmax(dim=1)
    planes[1, 2:] = 0
    planes[1] /= planes[1].sum(dim=0)
    return torch.rand(2, 3, 24, 32), planes


def test_every_refiner_that_is_registered_is_tried_here():
    registered = {name for name, module in MODELS.module_dict.items() if issubclass(module, Refiner)}
    assert registered == OURS.keys()


def test_the_answer_has_the_shape_of_the_planes_and_is_float32_or_as_wide_as_they_are(refiner, batch):
    images, planes = batch
    for kind in (torch.float32, torch.float64, torch.bfloat16):
        refined = refiner(images.to(kind), planes.to(kind))
        assert refined.shape == planes.shape and refined.dtype in (torch.float32, kind) and refined.isfinite().all()
        assert refined.dtype != torch.bfloat16


def test_planes_of_absent_classes_stay_zero_and_take_no_part(refiner, batch):
    images, planes = batch
    refined = refiner(images, planes)
    assert not refined[1, 2:].any() and refined[1, :2].any()
    assert_close(refiner(images[1:], planes[1:, :2]), refined[1:, :2], rtol=1e-5, atol=1e-6)


def test_a_plane_depends_on_others_only_where_the_refiner_says_so(refiner, batch):
    images, planes = batch
    alone, together = refiner(images, planes[:, :1]), refiner(images, planes)[:, :1]
    assert torch.allclose(alone, together, rtol=1e-5, atol=1e-6) == (not refiner.mixes_planes)


def test_a_batch_is_what_its_images_are_alone(refiner, batch):
    images, planes = batch
    alone = [refiner(image[None], plane[None]) for image, plane in zip(images, planes, strict=True)]
    assert_close(refiner(images, planes), torch.cat(alone), rtol=1e-5, atol=1e-6)


def test_what_is_given_is_left_alone_and_a_second_call_gives_the_same(refiner, batch):
    before = [tensor.clone() for tensor in batch]
    first, second = refiner(*batch), refiner(*batch)
    assert torch.equal(first, second)
    assert all(torch.equal(tensor, kept) for tensor, kept in zip(batch, before, strict=True))


def test_planes_that_belong_to_a_graph_need_no_detaching(refiner, batch):
    images, planes = batch
    refined = refiner(images, planes.clone().requires_grad_())
    assert_close(refined.detach(), refiner(images, planes))


def test_mixed_precision_changes_nothing(refiner, batch):
    expected = refiner(*batch)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(refiner(*batch), expected)


@pytest.mark.parametrize(
    ('images', 'planes'),
    [
        ((2, 3, 8, 8), (2, 2, 8, 9)),
        ((2, 3, 8, 8), (1, 2, 8, 8)),
        ((2, 1, 8, 8), (2, 2, 8, 8)),
        ((2, 3, 8, 8), (2, 8, 8)),
        ((3, 8, 8), (2, 8, 8)),
    ],
)
def test_other_shapes_are_refused_with_the_name_of_the_refiner(refiner, images, planes):
    expected = f'expected images (B, 3, H, W) and planes (B, K, H, W), got {images} and {planes}'
    with pytest.raises(ValueError, match=f'^{type(refiner).__name__}: {re.escape(expected)}$'):
        refiner(torch.rand(images), torch.rand(planes))


def test_an_answer_of_another_shape_is_refused_with_the_name_of_the_refiner():
    class Halves(Refiner):
        def refine(self, images, planes):
            return avg_pool2d(planes, 2)

    with pytest.raises(ValueError, match=re.escape('Halves: expected refined planes (1, 2, 8, 6), got (1, 2, 4, 3)')):
        Halves()(torch.rand(1, 3, 8, 6), torch.rand(1, 2, 8, 6))


# One's own, named by a config


def test_a_config_names_a_refiner_of_ones_own(build_toy, golden, make_samples, monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, 'Sharpen', Sharpen)
    refine = dict(type='aream_mm.Sharpen', power=50.0)
    model = build_toy(test_cfg=dict(refine=refine, band=(0.3, 0.6)))
    with torch.no_grad():
        plain = build_toy().predict(golden['denormalized'], make_samples(golden['labels']))
        sharp = model.predict(golden['denormalized'], make_samples(golden['labels']))
    for one, other, tags in zip(plain, sharp, golden['labels'], strict=True):
        assert torch.equal(one.cam.data, other.cam.data)  # refined are the planes
        planes = other.seg_logits.data
        assert not planes[1:][tags == 0].any() and (planes.amax(dim=0) > 0.9).float().mean() > 0.5
    present = 1 + int(golden['labels'].sum(dim=1).max())
    seen = model.test_cfg.refiner.seen
    assert len(seen) >= 2 and {shape[1] for shape in seen} == {present}  # one background score at a time
