"""The CNN stem of AttentionViT: it starts as nothing, learns, and keeps what the ViT does otherwise."""

import pytest
import timm
import torch
from mmengine.runner import load_checkpoint, save_checkpoint
from torch.testing import assert_close

from aream_mm.models import AttentionViT
from aream_mm.registry import MODELS

CNN = 'test_efficientnet'
SMALL = dict(embed_dim=24, depth=6, num_heads=3)
ALL = dict.fromkeys(range(6), 1.0)


def stem(frozen=True, **options):
    return dict(type='aream_mm.TimmCNN', name=CNN, out_indices=(2, 3), frozen=frozen, **options)


def vit(**options):
    return AttentionViT('vit_tiny_patch16_224', num_class_tokens=5, img_size=64, architecture=SMALL, **options)


def learnt(network):
    """The network with a projection that is zero no longer."""
    torch.nn.init.normal_(network.stem.projection.weight, std=0.1)
    return network


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64)


def test_the_stem_starts_as_nothing_and_acts_once_its_projection_has_learnt(images):
    with_stem, without = vit(stem=stem()).eval(), vit().eval()
    with_stem.load_state_dict(without.state_dict(), strict=False)
    with torch.no_grad():
        for theirs, ours in zip(without(images, ALL, [3]), with_stem(images, ALL, [3]), strict=True):
            assert theirs is ours is None or torch.equal(theirs, ours)
        assert not torch.allclose(learnt(with_stem)(images).features, without(images).features, atol=1e-3)


@pytest.mark.parametrize('frozen', [True, False])
def test_gradients_reach_the_projection_and_a_cnn_that_is_not_frozen(images, frozen):
    network = learnt(vit(stem=stem(frozen), frozen_layers=6)).train()
    network(images).features.square().sum().backward()
    reached = {name for name, weight in network.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert 'stem.projection.weight' in reached
    assert ('stem.cnn.cnn.conv_stem.weight' in reached) == (not frozen)
    assert all(name.startswith(('stem.', 'class_')) for name in reached)
    assert network.stem.cnn.training == (not frozen)


def test_a_projection_of_zero_learns_in_the_first_step(images):
    network = vit(stem=stem())
    network(images).features.square().sum().backward()
    assert network.stem.projection.weight.grad.any()


def test_gradient_checkpointing_changes_nothing(images):
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(1)
        network = learnt(vit(stem=stem(False), with_cp=with_cp)).train()
        network(images, logit_layers=[3]).mean_logits.square().mean().backward()
        gradients.append(network.stem.cnn.cnn.conv_stem.weight.grad)
    assert gradients[0].any()
    assert_close(*gradients)


@pytest.mark.parametrize(('name', 'patch'), [('vit_tiny_patch16_224', 16), ('vit_small_patch14_dinov2', 14)])
def test_any_image_size_and_patch_size_go_with_any_cnn(name, patch):
    network = learnt(AttentionViT(name, img_size=4 * patch, architecture=SMALL, stem=stem())).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, 3 * patch, 5 * patch)).features.shape == (1, 24, 3, 5)


def test_pretrained_weights_of_both_are_loaded_and_the_projection_stays_zero(tmp_path):
    theirs_vit = timm.create_model('vit_tiny_patch16_224', num_classes=0, img_size=64, **SMALL)
    theirs_cnn = timm.create_model(CNN)
    torch.save(theirs_vit.state_dict(), tmp_path / 'vit.pth')
    torch.save(theirs_cnn.state_dict(), tmp_path / 'cnn.pth')
    network = vit(pretrained=str(tmp_path / 'vit.pth'), stem=stem(pretrained=str(tmp_path / 'cnn.pth')))
    network.init_weights()
    assert torch.equal(network.blocks[5].attn.qkv.weight, theirs_vit.blocks[5].attn.qkv.weight)
    assert torch.equal(network.stem.cnn.cnn.conv_stem.weight, theirs_cnn.conv_stem.weight)
    assert not network.stem.projection.weight.any()


def test_a_checkpoint_gives_the_same_tokens(images, tmp_path):
    network, other = learnt(vit(stem=stem())).eval(), vit(stem=stem()).eval()
    save_checkpoint(dict(state_dict=network.state_dict()), str(tmp_path / 'vit.pth'))
    load_checkpoint(other, str(tmp_path / 'vit.pth'), strict=True)
    with torch.no_grad():
        assert torch.equal(network(images).features, other(images).features)


@pytest.mark.parametrize('frozen', [True, False])
def test_training_a_segmentor_with_a_stem_lowers_the_losses_of_classification(toy_config, golden, make_samples, frozen):
    toy_config['backbone']['stem'] = stem(frozen)
    model, samples = MODELS.build(toy_config).train(), make_samples(golden['labels'])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history = []
    for _ in range(8):
        losses = model.loss(golden['denormalized'], samples)
        history.append({name: loss.item() for name, loss in losses.items()})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert set(history[0]) == {'loss_class', 'loss_patch', 'loss_aream'}
    assert all(history[-1][name] < history[0][name] for name in ('loss_class', 'loss_patch'))
    assert model.backbone.stem.projection.weight.any()
