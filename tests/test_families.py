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
]
of_each_family = pytest.mark.parametrize('family', FAMILIES, ids=lambda family: family.name)


@pytest.fixture
def save(tmp_path):
    def save(model):
        torch.save(model.state_dict(), tmp_path / 'timm.pth')
        return str(tmp_path / 'timm.pth')

    return save


@of_each_family
def test_tokens_and_affinities_are_those_of_timm(family, save):
    name, weight, num_class_tokens, num_extra_tokens = family
    size = 64 if 'patch16' in name else 56
    theirs = timm.create_model(name, num_classes=0, img_size=size, **SMALL)
    assert weight in theirs.state_dict()
    ours = AttentionViT(
        name, num_class_tokens=num_class_tokens, pretrained=save(scramble(theirs)), img_size=size, architecture=SMALL
    ).eval()
    ours.init_weights()

    theirs.norm, attention = torch.nn.Identity(), []
    for block in theirs.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _, args: attention.append(args[0].mean(1)))
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        tokens = theirs.forward_features(ours.normalize(images))
        fused = ours(images)
        attended = ours(images, dict(enumerate(torch.eye(3))))
    first = num_class_tokens + num_extra_tokens
    assert tokens.shape[1] == first + 16
    for outcome in (fused, attended):
        assert_close(outcome.features.flatten(2).transpose(1, 2), tokens[:, first:], **close)
        if num_class_tokens:
            assert_close(outcome.class_tokens, tokens[:, :1], **close)
        else:
            assert outcome.class_tokens is None
    assert_close(attended.patch_affinity, torch.stack(attention)[:, :, first:, first:], **close)


@pytest.mark.skipif(
    Version(timm.__version__) < Version('1.0.31'), reason='this timm makes no network on the meta device'
)
@of_each_family
@pytest.mark.parametrize('img_size', [None, (112, 224)], ids=['own size', '112×224'])
def test_the_weights_of_the_full_size_model_load_from_a_file(family, img_size, save):
    """On the meta device, which has shapes and no numbers: the keys and shapes of the file have to fit strictly."""
    with torch.device('meta'):
        path = save(timm.create_model(family.name))
        ours = AttentionViT(family.name, num_class_tokens=4 * family.class_tokens, pretrained=path, img_size=img_size)
        ours.init_weights()
    assert ours.class_tokens.shape[1] == 4 * family.class_tokens
    assert ours.extra_tokens.shape[1] == family.extra_tokens
    assert ours.pos_embed.shape[1] == ours.grid_size[0] * ours.grid_size[1]


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
        'eva02_tiny_patch14_224',
        'vit_small_patch16_dinov3',
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
