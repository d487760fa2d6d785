"""AttentionViT: timm's tokens, the affinities of the paper, and what is done with pretrained weights and bad input."""

from urllib.error import URLError

import pytest
import reference
import timm
import torch
import torch.nn.functional as F
from packaging.version import Version
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import ParallelThingsBlock, ResPostBlock
from torch.testing import assert_close

from aream_mm.models import AttentionConformer, AttentionViT
from aream_mm.models.attention import AttentionRecorder

SMALL = dict(embed_dim=24, depth=4, num_heads=3)
close = dict(rtol=1e-5, atol=1e-5)


def scramble(model):
    """Weights large enough that attention is far from uniform."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if 'norm' in name and name.endswith('weight'):
                weight.uniform_(0.5, 1.5)
            else:
                weight.normal_(std=0.25)
    return model.eval()


def small_vit(name='vit_tiny_patch16_224', img_size=64, **options):
    return scramble(AttentionViT(name, img_size=img_size, architecture=SMALL, **options))


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64)


@pytest.fixture
def save_timm(tmp_path):
    """save_timm(name, **arguments): a timm model with scrambled weights, and the path of its state dict."""

    def save(name, **arguments):
        model = scramble(timm.create_model(name, num_classes=0, **{**SMALL, **arguments}))
        path = tmp_path / f'{name}.pth'
        torch.save(model.state_dict(), path)
        return model, str(path)

    return save


def attention_inputs(vit, images):
    """The input of each layer's attention, (B, N, D), by forward hooks."""
    inputs = []
    hooks = [block.attn.qkv.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for block in vit.blocks]
    with torch.no_grad():
        vit(images)
    for hook in hooks:
        hook.remove()
    return inputs


@pytest.mark.parametrize(
    ('name', 'num_class_tokens', 'num_extra_tokens'),
    [('vit_tiny_patch16_224', 1, 0), ('vit_tiny_patch16_224', 5, 0), ('vit_small_patch14_reg4_dinov2', 3, 4)],
)
def test_affinity_and_mean_logits_equal_per_head_reference(name, num_class_tokens, num_extra_tokens):
    vit = small_vit(name, img_size=56, patch_size=14, num_class_tokens=num_class_tokens)
    images, layers = torch.rand(1, 3, 56, 56), range(vit.num_layers)
    first_patch = num_class_tokens + num_extra_tokens
    with torch.no_grad():
        attended = vit(images, dict(enumerate(torch.eye(len(layers)))), layers)
    class_affinity = 0
    for layer, x in enumerate(attention_inputs(vit, images)):
        qkv = vit.blocks[layer].attn.qkv
        weight, bias = qkv.weight.detach().double().numpy(), qkv.bias.detach().double().numpy()
        _, affinity, mean_logits = reference.attention(x[0].double().numpy(), weight, bias, SMALL['num_heads'])
        assert affinity.sum(axis=1) == pytest.approx(1)
        affinity, mean_logits = torch.from_numpy(affinity).float(), torch.from_numpy(mean_logits).float()
        assert_close(attended.patch_affinity[layer, 0], affinity[first_patch:, first_patch:], **close)
        assert_close(attended.mean_logits[layer, 0], mean_logits[first_patch:, first_patch:], **close)
        class_affinity = class_affinity + affinity[:num_class_tokens, first_patch:] / len(layers)
    if num_class_tokens == 1:
        assert attended.class_affinity is None
    else:
        assert_close(attended.class_affinity[0], class_affinity, **close)


def test_affinity_rows_sum_to_one_when_class_tokens_attract_nothing(images):
    vit = small_vit(num_class_tokens=2)
    attention = vit.blocks[0].attn
    with torch.no_grad():
        # A class token is all first channel, which the key layer turns against every query.
        vit.class_tokens.zero_()
        vit.class_tokens[..., 0] = 1e4
        vit.blocks[0].norm1.weight.fill_(1)
        vit.blocks[0].norm1.bias.zero_()
        attention.qkv.weight.zero_()
        attention.qkv.bias.zero_()
        width = attention.head_dim
        for head in range(attention.num_heads):
            attention.qkv.bias[head * width] = 10
            attention.qkv.weight[24 + head * width, 0] = -20
        affinity = vit(images, {0: 1.0}).patch_affinity
    assert_close(affinity.sum(dim=-1), torch.ones(2, 16), **close)


@pytest.mark.parametrize('num_class_tokens', [1, 5])
def test_collected_path_equals_fused(images, num_class_tokens):
    vit = small_vit(num_class_tokens=num_class_tokens)
    with torch.no_grad():
        fused = vit(images)
        collected = vit(images, dict.fromkeys(range(4), 1.0), range(4))
        class_rows_only = vit(images, {})
    for other in (collected, class_rows_only):
        assert_close(other.features, fused.features, **close)
        assert_close(other.class_tokens, fused.class_tokens, **close)
    assert fused.patch_affinity is None and fused.class_affinity is None and fused.mean_logits is None


def test_gradients_of_collected_path_equal_fused(images):
    gradients = []
    for affinity in (None, dict.fromkeys(range(4), 1.0)):
        torch.manual_seed(1)
        vit = small_vit(num_class_tokens=5)
        vit(images, affinity).features.square().mean().backward()
        gradients.append(vit.blocks[0].attn.qkv.weight.grad)
    assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_patch_affinity_is_linear_in_layer_weights(images):
    vit = small_vit(num_class_tokens=5)
    with torch.no_grad():
        single = [vit(images, {layer: 1.0}).patch_affinity for layer in range(4)]
        weighted = vit(images, {0: 0.3, 3: torch.tensor(-0.5)}).patch_affinity
        groups = vit(images, {1: torch.tensor([1.0, 0.0, 2.0]), 2: torch.tensor([0.0, 1.0, 0.5])}).patch_affinity
    assert (single[0] - single[3]).abs().max() > 0.05
    assert_close(weighted, 0.3 * single[0] - 0.5 * single[3], **close)
    assert_close(groups, torch.stack([single[1], single[2], 2 * single[1] + 0.5 * single[2]]), **close)


def test_mean_logits_come_in_layer_order_and_only_where_asked(images):
    vit = small_vit()
    with torch.no_grad():
        every, some = vit(images, logit_layers=range(4)).mean_logits, vit(images, logit_layers=(1, 3)).mean_logits
    assert torch.equal(some, every[[1, 3]])


def test_tokens_of_layers_come_in_order_and_only_where_asked(images):
    vit = small_vit(num_class_tokens=5)
    with torch.no_grad():
        every, some = vit(images, token_layers=range(4)), vit(images, token_layers=(1, 3))
    assert torch.equal(some.layer_tokens, every.layer_tokens[[1, 3]])
    assert torch.equal(every.layer_tokens[-1].transpose(1, 2), every.features.flatten(2))
    assert every.mean_logits is None and vit(images).layer_tokens is None


@pytest.mark.parametrize(
    'option', [dict(qk_norm=True), dict(scale_attn_norm=True), dict(qkv_bias=False), dict(block_fn=ResPostBlock)]
)
@pytest.mark.parametrize('affinity', [None, {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}], ids=['fused', 'collected'])
def test_tokens_equal_timm_with_each_option_of_its_attention(save_timm, images, option, affinity):
    name = 'vit_tiny_patch16_224'
    theirs, path = save_timm(name, img_size=64, **option)
    ours = AttentionViT(name, pretrained=path, img_size=64, architecture=SMALL | option).eval()
    ours.init_weights()
    theirs.norm = torch.nn.Identity()
    with torch.no_grad():
        tokens = theirs.forward_features(ours.normalize(images))
        attended = ours(images, affinity)
    assert_close(attended.features.flatten(2).transpose(1, 2), tokens[:, 1:], rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'deit3_small_patch16_224'])
def test_class_tokens_start_as_copies_of_the_pretrained_one(save_timm, name):
    theirs, path = save_timm(name, img_size=64)
    ours = AttentionViT(name, num_class_tokens=5, pretrained=path, img_size=64, architecture=SMALL)
    ours.init_weights()
    assert torch.equal(ours.class_tokens, theirs.cls_token.expand(1, 5, 24))
    if theirs.no_embed_class:
        assert ours.class_pos_embed is None
    else:
        assert torch.equal(ours.class_pos_embed, theirs.pos_embed[:, :1].expand(1, 5, 24))


def test_pretrained_weights_are_read_by_init_weights_and_only_once(save_timm):
    theirs, path = save_timm('vit_tiny_patch16_224', img_size=64)
    ours = AttentionViT('vit_tiny_patch16_224', pretrained=path, img_size=64, architecture=SMALL)
    weight = ours.blocks[2].mlp.fc1.weight
    assert not torch.equal(weight, theirs.blocks[2].mlp.fc1.weight)
    ours.init_weights()
    for key, value in theirs.blocks.state_dict().items():
        assert torch.equal(ours.blocks.state_dict()[key], value), key
    assert torch.equal(ours.pos_embed, theirs.pos_embed[:, 1:])
    with torch.no_grad():
        weight.zero_()
    ours.init_weights()
    assert not weight.any()


def test_position_embedding_is_resampled_for_another_img_size(save_timm):
    theirs, path = save_timm('vit_tiny_patch16_224', img_size=64)
    ours = AttentionViT('vit_tiny_patch16_224', pretrained=path, img_size=(80, 112), architecture=SMALL)
    ours.init_weights()
    expected = resample_abs_pos_embed(theirs.pos_embed, (5, 7), num_prefix_tokens=1)
    assert_close(ours.pos_embed, expected[:, 1:], **close)
    assert_close(ours.class_tokens, theirs.cls_token, **close)
    assert_close(ours.class_pos_embed, theirs.pos_embed[:, :1], **close)


def test_missing_pretrained_file_is_named(tmp_path):
    path = str(tmp_path / 'nowhere.pth')
    vit = AttentionViT('vit_tiny_patch16_224', pretrained=path, img_size=64, architecture=SMALL)
    with pytest.raises(FileNotFoundError, match='vit_tiny_patch16_224.*nowhere.pth'):
        vit.init_weights()


def test_a_download_that_fails_says_how_a_file_is_given(monkeypatch):
    def unreachable(*_, **__):
        raise URLError('no network')

    monkeypatch.setattr('timm.models._hub.hf_hub_download', unreachable)
    monkeypatch.setattr('torch.hub.download_url_to_file', unreachable)
    for network in (AttentionViT('vit_tiny_patch16_224', pretrained=True), AttentionConformer('tiny', pretrained=True)):
        with pytest.raises(OSError, match='no network.*--cfg-options model.backbone.pretrained=FILE'):
            network.init_weights()


@pytest.mark.parametrize(('height', 'width'), [(64, 64), (48, 96), (112, 16), (16, 16)])
def test_any_multiple_of_the_patch_size_works(height, width):
    vit = small_vit(num_class_tokens=5)
    with torch.no_grad():
        attended = vit(torch.rand(1, 3, height, width), {0: 1.0}, [1])
    patches = height * width // 256
    assert attended.features.shape == (1, 24, height // 16, width // 16)
    assert attended.patch_affinity.shape == (1, patches, patches)
    assert attended.class_affinity.shape == (1, 5, patches)
    assert attended.mean_logits.shape == (1, 1, patches, patches)


@pytest.mark.parametrize('size', [(60, 64), (64, 60)])
def test_other_image_sizes_are_refused_with_the_patch_size(size):
    with pytest.raises(ValueError, match=f'multiples of the patch size 16, got {size[0]}×{size[1]}'):
        small_vit()(torch.rand(1, 3, *size))


since_timm_1_0_31 = pytest.mark.skipif(Version(timm.__version__) < Version('1.0.31'), reason='timm has no such block')


@pytest.mark.parametrize(
    ('option', 'got'),
    [
        (dict(block_fn=ParallelThingsBlock), 'ParallelThingsBlock'),
        pytest.param(dict(attn_layer='diff'), 'Block with DiffAttention', marks=since_timm_1_0_31),
    ],
)
def test_other_attention_inside_a_plain_vit_is_refused_by_name(option, got):
    with pytest.raises(TypeError, match=f'plain softmax attention, got {got}.*vit_tiny_patch16_224'):
        AttentionViT('vit_tiny_patch16_224', architecture=SMALL | option)


@pytest.mark.parametrize('num_class_tokens', [1, 5])
def test_frozen_layers_freeze_the_embeddings_and_the_first_layers(num_class_tokens):
    vit = small_vit(num_class_tokens=num_class_tokens, frozen_layers=2)
    frozen = {name for name, weight in vit.named_parameters() if not weight.requires_grad}
    embeddings = ['extra_tokens', 'pos_embed', 'class_pos_embed', 'patch_embed.', 'norm_pre.']
    embeddings += ['class_tokens'] * (num_class_tokens == 1)
    first = (*embeddings, 'blocks.0.', 'blocks.1.')
    assert frozen == {name for name, _ in vit.named_parameters() if name.startswith(first)}
    vit.train()
    assert [block.training for block in vit.blocks] == [False, False, True, True]
    assert [block.mlp.training for block in vit.blocks] == [False, False, True, True]


def test_copies_of_a_class_token_become_different_under_frozen_layers(images):
    vit = AttentionViT('vit_tiny_patch16_224', 5, img_size=64, frozen_layers=4, architecture=SMALL).train()
    optimizer = torch.optim.SGD(vit.parameters(), lr=1.0)
    logits = vit(images).class_tokens.mean(dim=-1)
    assert_close(logits, logits[:, :1].expand(-1, 5))
    (logits * torch.arange(5)).sum().backward()
    optimizer.step()
    assert vit(images).class_tokens.mean(dim=-1).std(dim=1).min() > 0.01


def test_attention_dropout_spares_frozen_layers(images):
    vit = AttentionViT('vit_tiny_patch16_224', frozen_layers=4, architecture=SMALL | dict(attn_drop_rate=0.5)).train()
    with torch.no_grad():
        for affinity in (None, dict.fromkeys(range(4), 1.0)):
            assert torch.equal(vit(images, affinity).features, vit(images, affinity).features)


def test_gradient_of_mean_logits_stops_at_frozen_layers(images):
    vit = small_vit(frozen_layers=2)
    vit(images, logit_layers=[3]).mean_logits.square().sum().backward()
    reached = {name for name, weight in vit.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert {'blocks.2.attn.qkv.weight', 'blocks.2.mlp.fc1.weight', 'blocks.3.attn.qkv.weight'} <= reached
    assert all(name.startswith(('blocks.2.', 'blocks.3.norm1.', 'blocks.3.attn.qkv.')) for name in reached)


def test_as_many_layers_as_there_are_can_be_frozen():
    assert not any(weight.requires_grad for weight in small_vit(frozen_layers=4).parameters())
    with pytest.raises(ValueError, match='frozen_layers in 0..4, got 5'):
        small_vit(frozen_layers=5)


def test_drop_path_acts_in_training_only(images):
    vit = small_vit(drop_path_rate=0.5)
    with torch.no_grad():
        assert torch.equal(vit(images).features, vit(images).features)
        vit.train()
        features = [vit(images).features for _ in range(4)]
    assert any(not torch.equal(features[0], other) for other in features[1:])


def test_unknown_architecture_option_is_refused():
    with pytest.raises(TypeError, match='embed_dims'):
        AttentionViT('vit_tiny_patch16_224', architecture=dict(embed_dims=24))


@pytest.mark.parametrize('options', [dict(is_causal=True), dict(scale=0.5), dict(attn_mask=torch.zeros(4, 4))])
def test_attention_that_is_no_plain_one_is_refused_where_its_maps_are_asked_for(options):
    q = torch.rand(1, 2, 4, 8)
    asked = dict(num_class_tokens=1, first_patch=1, every_row=True, class_rows=False, mean_logits=False)
    with AttentionRecorder(**asked):
        assert_close(F.scaled_dot_product_attention(q, q, q), (q @ q.mT / 8**0.5).softmax(dim=-1) @ q)
        with pytest.raises(ValueError, match='expected no mask, scale or causality'):
            F.scaled_dot_product_attention(q, q, q, **options)
