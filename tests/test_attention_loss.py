"""Losses on the attention: what one asks for is computed and nothing else, and a user's own needs no edit of ours."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from toy_own import make_own

from aream_mm.checkpoint import read_checkpoint
from aream_mm.models import AttentionLoss
from aream_mm.registry import MODELS

ROOT = Path(__file__).parents[1]
close = dict(rtol=1e-5, atol=1e-5)


class Recorder(AttentionLoss):
    """Keeps what it is given."""

    name = 'recorded'

    def __init__(self, num_layers, **asked):
        super().__init__()
        vars(self).update(asked)
        self.given = []

    def forward(self, attended, masks):
        self.given.append((attended, masks))
        return attended.features.sum()


@pytest.fixture
def recorded(build_toy, golden, make_samples):
    """recorded(asked…): the losses of a batch, and what the loss on its attention was given."""

    def record(**asked):
        model = build_toy().train()
        model.attention_loss = Recorder(num_layers=6, **asked)
        losses = model.loss(golden['denormalized'], make_samples(golden['labels']))
        (given,) = model.attention_loss.given
        return losses, *given

    return record


def test_a_loss_that_asks_for_nothing_gets_no_maps_and_no_masks(recorded):
    losses, attended, masks = recorded()
    assert set(losses) == {'loss_class', 'loss_patch', 'loss_recorded'}
    assert attended.features.requires_grad and masks is None
    assert attended[2:] == (None,) * 5


def test_a_loss_gets_the_maps_it_asks_for(recorded, golden):
    _, attended, masks = recorded(logit_layers=(2, 4), affinity_layers=(1, 5), label_affinity={})
    patches = golden['attn_logits'][..., 5:, 5:]
    assert_close(attended.mean_logits, patches.mean(dim=2)[[2, 4]], **close)
    affinity = golden['attn_logits'].softmax(dim=-1).mean(dim=2)[..., 5:, 5:]
    assert_close(attended.layer_affinity, affinity[[1, 5]], **close)
    assert attended.mean_logits.requires_grad and attended.layer_affinity.requires_grad
    assert attended.patch_affinity is None  # the label is the class map alone
    assert masks.shape == (2, 64, 64) and not masks.requires_grad


def test_the_same_layer_serves_the_loss_with_a_gradient_and_the_label_without(recorded, golden):
    _, attended, masks = recorded(affinity_layers=(2,), label_affinity={layer: 1 / 3 for layer in range(3)})
    assert torch.equal(masks, golden['seg_uni'])
    affinity = golden['attn_logits'].softmax(dim=-1).mean(dim=2)[:3, ..., 5:, 5:]
    assert_close(attended.patch_affinity, affinity.mean(dim=0), **close)
    assert attended.layer_affinity.requires_grad and not attended.patch_affinity.requires_grad


def test_the_gradient_of_the_affinity_is_that_of_softmax_attention(build_toy, golden):
    """Against heads written out: q and k of the last layer, whose other weights the affinity does not need."""
    model = build_toy().double()
    inputs, (block, captured) = golden['denormalized'].double(), (model.backbone.blocks[-1], [])
    block.attn.qkv.register_forward_hook(lambda _, arguments, out: captured.append((arguments[0].detach(), out)))
    weighting = torch.rand(2, 16, 16, dtype=torch.float64)
    (model.backbone(inputs, affinity_layers=(5,)).layer_affinity[0] * weighting).sum().backward()
    found = block.attn.qkv.weight.grad.clone()
    x = captured[0][0]
    weight = block.attn.qkv.weight.detach().clone().requires_grad_()
    q, k, _ = nn.functional.linear(x, weight, block.attn.qkv.bias.detach()).unflatten(2, (3, 3, 8)).unbind(2)
    logits = torch.einsum('bnhd,bmhd->bhnm', q, k) / 8**0.5
    (logits.softmax(dim=-1).mean(dim=1)[:, 5:, 5:] * weighting).sum().backward()
    assert found.any()
    assert_close(found, weight.grad, rtol=1e-9, atol=1e-12)


def kept_of_attention(model, images, **asked):
    """How many heads' weights (B, H, N, N) a forward pass keeps for the backward pass."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        model.backbone(images, **asked)
    return len({x.data_ptr() for x in kept if x.shape == (2, 3, 21, 21)})  # torch 2.1 names one twice


def test_weights_of_the_heads_are_kept_only_for_layers_whose_affinity_is_learnt(build_toy, golden):
    model, images = build_toy().train(), golden['denormalized']
    assert kept_of_attention(model, images, affinity={0: 0.5, 1: 0.5}, logit_layers=(3, 4, 5)) == 0
    assert kept_of_attention(model, images, affinity_layers=(4, 5)) == 2


def test_settings_of_a_base_class_are_not_shared(toy_config):
    first, second = (MODELS.build(dict(toy_config['attention_loss'], layer_index=k, num_layers=6)) for k in (2, 4))
    assert list(first.logit_layers) == [2, 3, 4, 5] and list(second.logit_layers) == [4, 5]
    assert AttentionLoss.logit_layers == () and AttentionLoss.layer_groups == {}


OUTSIDE = """
_base_ = {base!r}
custom_imports = dict(imports=['affinity_from_attention'], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, type='aream_mm.AttentionViT', name='vit_tiny_patch16_224', img_size=64,
                  architecture=dict(depth=3, embed_dim=24, num_heads=3)),
    head=dict(in_channels=24, token_channels=24),
    attention_loss=dict(_delete_=True, type='AffinityFromAttention', layers=(1, 2), loss_weight=1.0),
    test_cfg=dict(propagate_layers=(2,), scales=(1.0,)),
)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = test_dataloader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=4))
"""


def test_a_loss_outside_the_package_is_plugged_in_by_a_config_alone(tmp_path):
    make_own(tmp_path / 'own')
    (tmp_path / 'config.py').write_text(OUTSIDE.format(base=str(ROOT / 'configs/own_photographs.py')))
    options = [f'data_root={tmp_path}/own', 'train_cfg.max_iters=4', 'train_cfg.val_interval=4']
    options += ['custom_hooks.0.end=1', 'custom_hooks.1.dataloader.num_workers=0']
    command = [sys.executable, 'tools/train.py', tmp_path / 'config.py', '--work-dir', tmp_path / 'run']
    done = subprocess.run(
        [*map(str, command), '--cfg-options', *options],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=f'{ROOT}:{ROOT}/tests/outside'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in next((tmp_path / 'run').rglob('scalars.json')).read_text().splitlines()]
    steps = [row for row in rows if 'loss' in row]
    assert ['loss_affinity' in row for row in steps] == [False, True, True, True]
    weights = read_checkpoint(str(tmp_path / 'run/iter_4.pth'))['state_dict']
    assert weights['attention_loss.together.weight'].shape == (1, 2)
    assert len(list((tmp_path / 'run/pseudo_masks').rglob('*.png'))) == 6


def test_a_loss_outside_the_package_reaches_queries_and_keys_of_its_layers(
    toy_config, golden, make_samples, monkeypatch
):
    monkeypatch.syspath_prepend(ROOT / 'tests/outside')
    import_module('affinity_from_attention')
    toy_config['attention_loss'] = dict(type='mmseg.AffinityFromAttention', layers=(4, 5))
    model = MODELS.build(toy_config).train()
    model.loss(golden['denormalized'], make_samples(golden['labels']))['loss_affinity'].backward()
    for block in model.backbone.blocks[4:]:
        query, key, _ = block.attn.qkv.weight.grad.chunk(3)
        assert query.any() and key.any()
    assert model.attention_loss.together.weight.grad.any()
    assert model.head.class_map.weight.grad is None
