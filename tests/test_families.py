"""timm's families: tokens and attention of AttentionViT are the model's own, pretrained keys fit, others refused."""

from typing import NamedTuple

import pytest
import timm
import torch
from packaging.version import Version
from test_vit import scramble
from torch.testing import assert_close

from aream_mm.models import AttentionViT, TimmCNN

SMALL = dict(embed_dim=24, depth=3, num_heads=3)
close = dict(rtol=1e-4, atol=5e-5)


class Family(NamedTuple):
    """A timm model, the weight in which its family differs from the first ViT, and its tokens beside the patches."""

    name: str
    weight: str = 'cls_token'
    class_tokens: int = 1
    extra_tokens: int = 0


FAMILIES = [
    Family('vit_small_patch16_224.augreg_in21k'),
    Family('vit_small_patch16_224.dino'),
    Family('vit_base_patch16_224.mae'),
    Family('deit_small_patch16_224'),
    Family('deit_small_distilled_patch16_224', 'dist_token', extra_tokens=1),
    Family('deit3_small_patch16_224', 'blocks.0.ls1.gamma'),
    Family('vit_small_patch14_dinov2', 'blocks.0.ls1.gamma'),
    Family('vit_small_patch14_reg4_dinov2', 'reg_token', extra_tokens=4),
    Family('vit_giant_patch14_dinov2', 'blocks.0.mlp.fc2.weight'),  # SwiGLU
    Family('vit_base_patch16_clip_224.openai', 'norm_pre.weight'),
    Family('vit_base_patch16_clip_quickgelu_224.openai', 'norm_pre.weight'),
    Family('eva_large_patch14_196', 'fc_norm.weight'),
    Family('beit3_base_patch16_224', 'blocks.0.attn.norm.weight'),
    Family('vit_base_patch16_siglip_224', 'attn_pool.latent', class_tokens=0),
    Family('aimv2_large_patch14_224', 'blocks.0.mlp.fc1_g.weight', class_tokens=0),  # SwiGLU, RMSNorm, no biases
    Family('vit_little_patch16_reg4_gap_256', 'reg_token', class_tokens=0, extra_tokens=4),
    Family('eva_giant_patch14_224', 'blocks.0.attn.q_bias'),
    Family('eva02_tiny_patch14_224', 'blocks.0.attn.v_bias'),  # SwiGLU; from here on rotary positions
    Family('eva02_base_patch14_448', 'blocks.0.attn.q_proj.weight'),
    Family('eva02_large_patch14_clip_224', 'blocks.0.attn.norm.weight'),
    Family('eva02_enormous_patch14_clip_224', 'blocks.0.norm1.weight'),  # norms after attention and MLP
    Family('vit_medium_patch16_rope_reg1_gap_256', 'blocks.0.gamma_1', class_tokens=0, extra_tokens=1),
    Family('vit_pe_core_small_patch16_384', 'norm_pre.weight'),
    Family('vit_pe_spatial_small_patch16_512', 'norm_pre.weight'),
    Family('vit_small_patch16_rope_224', 'blocks.0.gamma_1'),
    Family('vit_small_patch16_rope_mixed_ape_224', 'rope.freqs'),  # learnt rotations of each layer and head
    Family('vit_small_patch16_dinov3', 'reg_token', extra_tokens=4),
    Family('vit_base_patch16_dinov3', 'reg_token', extra_tokens=4),
    Family('vit_large_patch16_dinov3_qkvb', 'blocks.0.attn.q_bias', extra_tokens=4),
    Family('vit_small_plus_patch16_dinov3', 'blocks.0.mlp.fc1_g.weight', extra_tokens=4),
    Family('vit_small_patch16_lingbot', 'reg_token', extra_tokens=4),
    Family('vit_base_patch16_sapiens2', 'blocks.0.attn.q_norm.weight', extra_tokens=8),
]
of_each_family = pytest.mark.parametrize('family', FAMILIES, ids=lambda family: family.name)
ROTARY = FAMILIES[next(i for i, family in enumerate(FAMILIES) if family.name.startswith('eva02_tiny')) :]
of_each_rotary_family = pytest.mark.parametrize('family', ROTARY, ids=lambda family: family.name)


def small(family):
    """The size of images of 4 × 4 patches, and timm's arguments of a small network."""
    if not timm.is_model(family.name.split('.')[0]):
        pytest.skip(f'this timm has no {family.name}')
    heads = dict(num_kv_heads=1) if 'sapiens2' in family.name else {}  # fewer keys and values than queries
    return 64 if 'patch16' in family.name else 56, SMALL | heads


@pytest.fixture
def save(tmp_path):
    def save(model):
        torch.save(model.state_dict(), tmp_path / 'timm.pth')
        return str(tmp_path / 'timm.pth')

    return save


def networks(family, save, num_class_tokens=None, **options):
    """timm's network and AttentionViT with its weights, scrambled, in evaluation; and the side of images."""
    size, arguments = small(family)
    theirs = scramble(timm.create_model(family.name, num_classes=0, img_size=size, **arguments, **options))
    count = family.class_tokens if num_class_tokens is None else num_class_tokens
    ours = AttentionViT(
        family.name, count, pretrained=save(theirs), img_size=size, architecture=arguments | options
    ).eval()
    ours.init_weights()
    theirs.norm = torch.nn.Identity()
    assert family.weight in theirs.state_dict()
    return theirs, ours, size


def read_attention(network):
    """A list that gets the attention (B, N, N) of each layer of timm's from now on."""
    attention = []
    for block in network.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _, args: attention.append(args[0].mean(1)))
    return attention


@of_each_family
def test_tokens_and_affinities_are_those_of_timm(family, save):
    theirs, ours, size = networks(family, save)
    num_class_tokens, first = family.class_tokens, family.class_tokens + family.extra_tokens
    attention, images = read_attention(theirs), torch.rand(2, 3, size, size)
    with torch.no_grad():
        tokens = theirs.forward_features(ours.normalize(images))
        fused = ours(images)
        attended = ours(images, dict(enumerate(torch.eye(3))))
    assert tokens.shape[1] == first + 16
    for outcome in (fused, attended):
        assert_close(outcome.features.flatten(2).transpose(1, 2), tokens[:, first:], **close)
        if num_class_tokens:
            assert_close(outcome.class_tokens, tokens[:, :1], **close)
        else:
            assert outcome.class_tokens is None
    assert_close(attended.patch_affinity, torch.stack(attention)[:, :, first:, first:], **close)


@pytest.mark.parametrize('family', FAMILIES[5:11:5] + ROTARY[::4], ids=lambda family: family.name)
@pytest.mark.parametrize('maps', [{}, dict(affinity={0: 1.0}, logit_layers=[2])], ids=['fused', 'collected'])
def test_training_draws_the_random_numbers_of_timm(family, save, maps):
    theirs, ours, size = networks(family, save, drop_path_rate=0.3, proj_drop_rate=0.1, attn_drop_rate=0.1)
    images, first = torch.rand(4, 3, size, size), family.class_tokens + family.extra_tokens
    outcomes = []
    for work in (
        lambda: theirs.train().forward_features(ours.normalize(images))[:, first:],
        lambda: ours.train()(images, **maps).features.flatten(2).transpose(1, 2),
    ):
        torch.manual_seed(1)
        outcomes.append(work())
    assert_close(*outcomes, **close)


@of_each_rotary_family
@pytest.mark.parametrize('grid', [(3, 5), (6, 2)])
def test_positions_rotate_by_the_grid_of_any_size(family, save, grid):
    theirs, ours, size = networks(family, save, dynamic_img_size=True)
    ours.pos_embed = theirs.pos_embed = None  # what is added of both is another test's
    attention, images = read_attention(theirs), torch.rand(1, 3, grid[0] * size // 4, grid[1] * size // 4)
    images = torch.cat([images, images.flip(-1)])
    ours.class_pos_embed = None
    with torch.no_grad():
        theirs.forward_features(ours.normalize(images))
        affinity = ours(images, dict(enumerate(torch.eye(3)))).patch_affinity
    first = family.class_tokens + family.extra_tokens
    assert_close(affinity, torch.stack(attention)[:, :, first:, first:], **close)


@of_each_rotary_family
def test_no_class_token_is_rotated_however_many_there_are(family, save):
    if not family.class_tokens:
        pytest.skip('has none')
    one, several = (networks(family, save, count)[1] for count in (1, 5))
    several.load_state_dict({**one.state_dict(), **{k: v for k, v in several.state_dict().items() if 'class_' in k}})
    with torch.no_grad():
        several.class_tokens.copy_(one.class_tokens.expand_as(several.class_tokens))
        if one.class_pos_embed is not None:
            several.class_pos_embed.copy_(one.class_pos_embed.expand_as(several.class_pos_embed))
        images = torch.rand(2, 3, *[several.grid_size[0] * several.patch_size] * 2)
        alone, together = one(images, logit_layers=[0]), several(images, {}, [0])
    assert_close(together.mean_logits, alone.mean_logits, **close)
    assert_close(together.class_tokens, together.class_tokens[:, :1].expand(-1, 5, -1), **close)


@of_each_family
def test_with_cp_frozen_layers_and_a_checkpoint_change_nothing(family, save):
    _, ours, size = networks(family, save, 5 * family.class_tokens)
    images = torch.rand(2, 3, size, size)
    gradients = []
    for with_cp in (False, True):
        other = AttentionViT(
            family.name,
            5 * family.class_tokens,
            img_size=size,
            with_cp=with_cp,
            frozen_layers=1,
            architecture=small(family)[1],
        )
        other.load_state_dict(ours.state_dict())
        attended = other.train()(images, {0: 1.0}, [1, 2])
        assert_close(attended.features, ours(images).features, **close)
        (attended.mean_logits.square().mean() + attended.features.square().mean()).backward()
        gradients.append({name: weight.grad for name, weight in other.named_parameters() if weight.grad is not None})
    assert not [name for name in gradients[0] if name.startswith(('blocks.0.', 'pos_embed', 'extra', 'rope', 'patch'))]
    assert any(name.startswith('blocks.1.') for name in gradients[0])
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, **close)


@pytest.mark.skipif(
    Version(timm.__version__) < Version('1.0.31'), reason='this timm makes no network on the meta device'
)
@of_each_family
@pytest.mark.parametrize('img_size', [None, (112, 224)], ids=['own size', '112×224'])
def test_the_weights_of_the_full_size_model_load_from_a_file(family, img_size, save):
    """Two layers on the meta device, which has no numbers: the keys and shapes of the file have to fit strictly."""
    architecture = small(family)[1] | dict(depth=2)
    width = {key: value for key, value in architecture.items() if key not in ('embed_dim', 'num_heads')}
    with torch.device('meta'):
        path = save(timm.create_model(family.name, **width))
        ours = AttentionViT(
            family.name, 4 * family.class_tokens, pretrained=path, img_size=img_size, architecture=width
        )
        ours.init_weights()
    assert ours.class_tokens.shape[1] == 4 * family.class_tokens
    assert ours.extra_tokens.shape[1] == family.extra_tokens
    assert ours.pos_embed is None or ours.pos_embed.shape[1] == ours.grid_size[0] * ours.grid_size[1]


@pytest.mark.parametrize('lost', ['blocks.1.attn.qkv.bias', 'pos_embed', 'cls_token', 'patch_embed.proj.weight'])
def test_a_file_without_a_weight_of_the_model_is_refused_by_name(lost, save):
    model = timm.create_model('vit_tiny_patch16_224', **SMALL)
    path = save(model)
    torch.save({key: value for key, value in model.state_dict().items() if key != lost}, path)
    ours = AttentionViT('vit_tiny_patch16_224', pretrained=path, architecture=SMALL)
    with pytest.raises(ValueError, match=f"timm.pth: expected weights of 'vit_tiny_patch16_224'.*1 lack: .'{lost}'"):
        ours.init_weights()


@pytest.mark.parametrize(
    ('name', 'lost'),
    [('test_efficientnet', 'blocks.0.0.conv.weight'), ('test_convnext', 'stages.0.blocks.0.conv_dw.weight')],
)
def test_a_file_without_a_weight_of_the_cnn_is_refused_by_name(name, lost, save):
    path = save(model := timm.create_model(name))
    cnn = TimmCNN(name, out_indices=(2, 3), pretrained=path)
    TimmCNN(name, out_indices=(2, 3), pretrained=path).init_weights()
    weights = model.state_dict()
    weights['another_name'] = weights.pop(lost)
    torch.save(weights, path)
    with pytest.raises(ValueError, match=f"timm.pth: expected weights of '{name}'.*1 lack: .'{lost}'"):
        cnn.init_weights()


@pytest.mark.parametrize('name', ['test_efficientnet', 'resnet18'])
def test_the_maps_of_a_cnn_are_laid_out_channels_last_and_equal_those_of_timm(name, save):
    ours = TimmCNN(name, out_indices=(2, 3), pretrained=save(timm.create_model(name).eval())).eval()
    ours.init_weights()
    theirs = timm.create_model(name, features_only=True, out_indices=(2, 3)).eval()
    theirs.load_state_dict(ours.cnn.state_dict())
    images = torch.rand(2, 3, 64, 96)
    for got, expected in zip(ours(images), theirs(ours.normalize(images)), strict=True):
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_file_without_the_final_norm_loads(save):
    path = save(model := timm.create_model('vit_tiny_patch16_224', **SMALL))
    torch.save({key: value for key, value in model.state_dict().items() if not key.startswith('norm.')}, path)
    AttentionViT('vit_tiny_patch16_224', pretrained=path, architecture=SMALL).init_weights()


@pytest.mark.parametrize(
    'name',
    [
        'swin_tiny_patch4_window7_224',
        'pvt_v2_b0',  # the design of MiT
        'beit_base_patch16_224',
        'naflexvit_base_patch16_gap',
        'hiera_tiny_224',
        'vit_relpos_small_patch16_224',
        'samvit_base_patch16',
        'resnet18',
    ],
)
def test_networks_that_are_no_plain_vit_are_refused_by_name(name):
    if not timm.is_model(name):
        pytest.skip(f'this timm has no {name}')
    with pytest.raises(TypeError, match=f'expected a plain timm VisionTransformer .*no windows.*{name}'):
        AttentionViT(name)


def test_a_cnn_in_front_of_the_patches_is_refused_by_name():
    with pytest.raises(ValueError, match='square patches.*, got HybridEmbed.*vit_small_r26_s32_224.*`stem`'):
        AttentionViT('vit_small_r26_s32_224', architecture=SMALL)


@pytest.mark.parametrize('count', [1, 5])
def test_class_tokens_of_a_model_without_any_are_refused_by_name(count):
    message = f'num_class_tokens of 0 for one without any, got {count}, .vit_base_patch16_siglip_224'
    with pytest.raises(ValueError, match=message):
        AttentionViT('vit_base_patch16_siglip_224', num_class_tokens=count, architecture=SMALL)


def test_leaving_out_the_class_token_of_a_model_is_refused_by_name():
    message = 'num_class_tokens of at least 1 for a model with a class token, got 0, .vit_tiny_patch16_224'
    with pytest.raises(ValueError, match=message):
        AttentionViT('vit_tiny_patch16_224', num_class_tokens=0, architecture=SMALL)
