"""Every registered backbone of stage 1 through one list of properties that a backbone of one's own has to have too."""

import pytest
import torch
from torch.testing import assert_close

from aream_mm.models import AttentionBackbone, attention
from aream_mm.models.cam import propagate
from aream_mm.registry import MODELS

VIT = dict(type='aream_mm.AttentionViT', img_size=64, architecture=dict(embed_dim=24, depth=4, num_heads=3))
CNN = dict(type='aream_mm.TimmCNN', name='test_convnext', out_indices=(1, 2))
CONFORMER = dict(embed_dims=24, channel_ratio=1, num_heads=3, depths=6)
BACKBONES = {
    'one class token': dict(VIT, name='vit_tiny_patch16_224'),
    'a class token per class': dict(VIT, name='vit_tiny_patch16_224', num_class_tokens=5),
    'no class token': dict(VIT, name='vit_base_patch16_siglip_224', num_class_tokens=0),
    'register tokens': dict(VIT, name='vit_small_patch14_reg4_dinov2', img_size=56),
    'rotary positions': dict(VIT, name='eva02_tiny_patch14_224', img_size=56, num_class_tokens=5),
    'a stem': dict(VIT, name='vit_tiny_patch16_224', stem=CNN),
    'two branches': dict(type='aream_mm.DualBranch', cnn=CNN, vit=dict(VIT, name='vit_tiny_patch16_224')),
    'a CNN': dict(type='aream_mm.CNNBackbone', cnn=CNN),
    'a Conformer': dict(type='aream_mm.AttentionConformer', arch=CONFORMER),
}


@pytest.fixture(params=BACKBONES)
def backbone(request):
    return MODELS.build(BACKBONES[request.param]).eval()


@pytest.fixture
def images(backbone):
    side = backbone.patch_size
    return torch.rand(2, 3, 64 // side * side, 96 // side * side)


@pytest.fixture
def num_patches(backbone, images):
    return images.shape[-2] // backbone.patch_size * images.shape[-1] // backbone.patch_size


@pytest.fixture
def attending(backbone):
    if not backbone.num_layers:
        pytest.skip('has no attention')
    return backbone


def test_every_registered_backbone_is_in_this_list():
    registered = {module for module in MODELS.module_dict.values() if issubclass(module, AttentionBackbone)}
    assert {type(MODELS.build(config)) for config in BACKBONES.values()} == registered - {AttentionBackbone}


def test_tokens_and_features_lie_on_the_grid_and_nothing_else_is_made(backbone, images):
    attended = backbone(images)
    assert attended.features.shape[::2] == (2, images.shape[-2] // backbone.patch_size)
    assert attended.features.shape[3] == images.shape[-1] // backbone.patch_size
    tokens = attended.class_tokens
    assert backbone.num_class_tokens == (0 if tokens is None else tokens.shape[1])
    assert backbone.num_prefix_tokens >= backbone.num_class_tokens
    assert attended[2:] == (None,) * 5


def test_the_affinity_is_the_weighted_sum_of_what_each_layer_gives(attending, images, num_patches):
    layers = range(attending.num_layers)
    with torch.no_grad():
        each = attending(images, dict(enumerate(torch.eye(len(layers))))).patch_affinity
        weighted = attending(images, {0: 0.25, layers[-1]: 3.0}).patch_affinity
    assert each.shape == (len(layers), 2, num_patches, num_patches)
    assert (each >= 0).all() and (each.sum(dim=-1) <= 1 + 1e-5).all() and each.std() > 0
    assert_close(weighted, 0.25 * each[0] + 3 * each[-1], rtol=1e-5, atol=1e-6)


def test_the_affinity_with_a_gradient_is_the_one_without(attending, images):
    layers = range(attending.num_layers)
    with torch.no_grad():
        expected = attending(images, dict(enumerate(torch.eye(len(layers))))).patch_affinity
    learnt = attending(images, affinity_layers=layers).layer_affinity
    assert learnt.requires_grad and not attending(images, {0: 1.0}).patch_affinity.requires_grad
    assert_close(learnt, expected, rtol=1e-4, atol=1e-6)


def test_maps_change_neither_tokens_nor_features(attending, images):
    layers = range(attending.num_layers)
    with torch.no_grad():
        fused, collected = attending(images), attending(images, {0: 1.0}, layers, layers, layers)
    assert_close(collected.features, fused.features, rtol=1e-4, atol=1e-5)
    assert collected.mean_logits.shape == collected.layer_affinity.shape
    assert collected.layer_tokens.shape[:3] == collected.mean_logits.shape[:3]


@pytest.mark.parametrize('steps', [1, 3])
def test_the_affinity_of_large_images_propagates_in_rows_as_it_does_whole(attending, images, steps, monkeypatch):
    weights = {0: 0.25, attending.num_layers - 1: torch.tensor(3.0)}
    groups = {layer: torch.as_tensor([weight, 1.0]) for layer, weight in weights.items()}
    cam = torch.rand(2, 5, *(side // attending.patch_size for side in images.shape[-2:]))
    with torch.no_grad():
        whole = attending(images, weights)
        monkeypatch.setattr(attention, 'LARGE', 1)
        monkeypatch.setattr(attention, 'MOST', 100)  # so that no block has all rows
        rows = attending(images, weights)
        assert_close(attending(images, groups).patch_affinity[0], whole.patch_affinity, rtol=1e-5, atol=1e-6)
    assert isinstance(rows.patch_affinity, attention.AffinityInRows)
    assert_close(rows.features, whole.features, rtol=1e-4, atol=1e-5)
    if whole.class_affinity is not None:
        assert_close(rows.class_affinity, whole.class_affinity, rtol=1e-5, atol=1e-6)
    expected = propagate(cam, whole.patch_affinity, steps)
    assert_close(propagate(cam, rows.patch_affinity, steps), expected, rtol=1e-5, atol=1e-5)


def test_a_batch_gives_what_its_images_give_alone(backbone, images):
    with torch.no_grad():
        together, alone = backbone(images), backbone(images[1:])
    assert_close(together.features[1:], alone.features, rtol=1e-4, atol=1e-5)


def test_sides_that_are_no_multiples_of_the_patch_are_refused_by_name(backbone, images):
    with pytest.raises(ValueError, match=f'{type(backbone).__name__}: expected image sides that are multiples'):
        backbone(images[..., :-1])


def test_layers_that_it_does_not_have_are_refused_by_name(backbone, images):
    number = backbone.num_layers
    for asked in (dict(affinity={number: 1.0}), dict(logit_layers=[number]), dict(affinity_layers=[number])):
        with pytest.raises(ValueError, match=rf'{type(backbone).__name__}: expected .*layers.* got \[{number}\]'):
            backbone(images, **asked)


class Shrunk(AttentionBackbone):
    """One of a user's own, whose features are not where they should be."""

    patch_size, num_layers, num_class_tokens, num_prefix_tokens = 16, 0, 0, 0

    def run(self, images, maps):
        return MODELS.build(BACKBONES['a CNN']).run(images, maps)


def test_features_off_the_grid_are_refused_by_name():
    with pytest.raises(ValueError, match=r'Shrunk: expected features on a grid of \(4, 6\), got '):
        Shrunk()(torch.rand(1, 3, 64, 96))
