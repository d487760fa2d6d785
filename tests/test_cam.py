"""The CAM functions against plain loops, and by the properties that make a CAM a CAM."""

import pytest
import reference
import torch
from torch.testing import assert_close

from aream_mm.models import PAR, cam

close = dict(rtol=1e-5, atol=1e-5)


@pytest.fixture
def par():
    return PAR()


@pytest.fixture
def batch():
    """Images, smooth CAMs of 4 classes in 0..1, and 1, 3, 2 and 0 tags."""
    scores = cam.normalize(cam.upsample(torch.rand(4, 4, 4, 4), (20, 26)))
    tags = torch.tensor([[0, 0, 1, 0], [1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]]).float()
    return torch.rand(4, 3, 20, 26), scores * tags[:, :, None, None], tags


@pytest.mark.parametrize('steps', [1, 3])
def test_propagate_equals_reference(steps):
    maps, affinity = torch.rand(2, 3, 2, 4), torch.rand(2, 8, 8)
    expected = [reference.propagate(m.numpy(), a.numpy(), steps) for m, a in zip(maps, affinity, strict=True)]
    assert_close(cam.propagate(maps, affinity, steps).double(), torch.tensor(expected), **close)


def test_identity_affinity_changes_nothing():
    maps = torch.rand(2, 3, 4, 5)
    assert torch.equal(cam.propagate(maps, torch.eye(20).expand(2, 20, 20), steps=3), maps)


def test_uniform_affinity_gives_the_mean():
    maps = torch.rand(2, 3, 4, 5)
    expected = maps.mean(dim=(2, 3), keepdim=True).expand_as(maps)
    assert_close(cam.propagate(maps, torch.full((2, 20, 20), 1 / 20)), expected, **close)


def test_rows_of_the_affinity_receive():
    affinity = torch.zeros(1, 4, 4)
    affinity[0, 2, 1] = 1  # patch 2 receives from patch 1
    maps = torch.tensor([5.0, 7.0, 11.0, 13.0]).view(1, 1, 2, 2)
    assert cam.propagate(maps, affinity).flatten().tolist() == [0, 0, 7, 0]


def test_activate_is_zero_below_zero_and_weighted_by_class_affinity():
    class_map, class_affinity = torch.randn(2, 3, 2, 4), torch.rand(2, 3, 8)
    assert torch.equal(cam.activate(class_map), class_map.clamp(min=0))
    expected = class_map.clamp(min=0).flatten(2) * class_affinity
    assert_close(cam.activate(class_map, class_affinity).flatten(2), expected, rtol=0, atol=0)


def test_normalize_equals_reference():
    maps = torch.randn(2, 3, 4, 5) * 7
    expected = torch.tensor([reference.normalize(m.double().numpy()) for m in maps])
    assert_close(cam.normalize(maps).double(), expected, **close)


def test_normalize_reaches_both_bounds_of_every_map():
    maps = cam.normalize(torch.randn(2, 3, 4, 5) * torch.tensor([1.0, 10, 100])[:, None, None])
    assert_close(maps.amin(dim=(2, 3)), torch.zeros(2, 3), rtol=0, atol=0)
    assert_close(maps.amax(dim=(2, 3)), torch.ones(2, 3), rtol=0, atol=1e-5)
    assert maps.max() <= 1


@pytest.mark.parametrize('value', [0.0, 3.0, -2.0])
def test_constant_map_becomes_zero(value):
    assert not cam.normalize(torch.full((1, 2, 4, 5), value)).any()


def test_upsample_equals_reference():
    maps = torch.rand(2, 3, 3, 4)
    for size in ((7, 9), (2, 2)):
        expected = torch.tensor([reference.resize(m.numpy(), size) for m in maps])
        assert_close(cam.upsample(maps, size).double(), expected, **close)


def test_background_wins_ties():
    maps = torch.tensor([0.4, 0.4001, 0.3999]).view(1, 1, 1, 3)
    assert cam.add_background(maps, 0.4).argmax(dim=1).flatten().tolist() == [0, 1, 0]


def test_several_affinities_give_as_many_cams():
    cams, affinity = torch.rand(2, 3, 4, 5), torch.rand(4, 2, 20, 20).softmax(dim=-1)
    together = cam.propagate(cams, affinity, steps=2)
    assert_close(together, torch.stack([cam.propagate(cams, one, steps=2) for one in affinity]), **close)


def test_mirrored_image_gives_the_mirrored_cam(toy_segmentor):
    images = torch.rand(2, 3, 64, 96)
    both, one = (toy_segmentor.settings_with(propagate_layers=(0, 5), mirror=mirror) for mirror in (True, False))
    with torch.no_grad():
        ((raw, *_),), _, scores = toy_segmentor.raw_cam(images, both)
        ((mirrored_raw, *_),), _, mirrored_scores = toy_segmentor.raw_cam(images.flip(-1), both)
        ((one_sided, *_),) = toy_segmentor.raw_cam(images, one).cams
        ((mirrored_one_sided, *_),) = toy_segmentor.raw_cam(images.flip(-1), one).cams
    assert_close(mirrored_raw, raw.flip(-1), **close)
    assert_close(mirrored_scores, scores, **close)
    assert_close(raw, one_sided + mirrored_one_sided.flip(-1), **close)
    # Not so without the mirror, or the assertions above would prove nothing.
    assert (mirrored_one_sided - one_sided.flip(-1)).abs().max() > 0.01


def test_reliable_masks_equal_reference(batch, par):
    images, scores, tags = (x[:3, ..., :11, :15] if x.ndim == 4 else x[:3] for x in batch)  # odd sides
    masks = cam.reliable_masks(scores, tags, images, par)
    for image in range(3):
        expected = reference.reliable_mask(scores[image].numpy(), tags[image], images[image].numpy())
        assert masks[image].tolist() == expected.tolist()
    assert {0, 255} < set(masks.unique().tolist())


def test_absent_classes_never_appear(batch, par):
    images, scores, tags = batch
    scores = torch.rand_like(scores)  # high scores for absent classes too
    for image, mask in enumerate(cam.reliable_masks(scores, tags, images, par, low=0.0, high=0.1)):
        present = set((tags[image].nonzero().flatten() + 1).tolist())
        assert set(mask.unique().tolist()) <= present | {0, 255}
        assert present & set(mask.unique().tolist()) or not present


def test_raising_high_only_turns_pixels_to_ignored(batch, par):
    images, scores, _ = batch
    scores, tags = scores.amax(dim=1, keepdim=True), torch.ones(4, 1)
    lower = cam.reliable_masks(scores, tags, images, par, low=0.3, high=0.4)
    higher = cam.reliable_masks(scores, tags, images, par, low=0.3, high=0.6)
    changed = lower != higher
    assert changed.any()
    assert (higher[changed] == 255).all()
    assert (lower[changed] == 1).all()


def test_nothing_is_ignored_between_equal_scores(batch, par):
    images, scores, tags = batch
    assert not (cam.reliable_masks(scores, tags, images, par, low=0.45, high=0.45) == 255).any()


def test_batch_equals_one_by_one_with_different_numbers_of_tags(batch, par):
    images, scores, tags = batch
    together = cam.reliable_masks(scores, tags, images, par)
    alone = [
        cam.reliable_masks(scores[i : i + 1], tags[i : i + 1], images[i : i + 1], par)
        for i in range(3)  # the fourth has no tags: see the next test
    ]
    assert torch.equal(together[:3], torch.cat(alone))
    assert not together[3].any()


def test_images_without_any_tag_are_background(batch, par):
    images, scores, tags = batch
    masks = cam.reliable_masks(scores, torch.zeros_like(tags), images, par)
    assert masks.shape == (4, 20, 26)
    assert not masks.any()


def test_refined_planes_sum_to_the_mass_that_par_keeps(batch, par):
    images, scores, tags = batch
    present = cam.present_classes(tags)
    assert present.classes[1].tolist() == [0, 1, 3]
    planes = cam.refine(cam.select(scores, present.classes), present.mask, images, par, (0.2, 0.6))
    assert planes.shape == (2, 4, 4, 20, 26)
    assert_close(planes.sum(dim=2), torch.full((2, 4, 20, 26), 1.01**10), rtol=1e-4, atol=0)
    assert not planes[:, 0, 2:].any()  # one tag: background, its class, and nothing else
