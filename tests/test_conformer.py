"""AttentionConformer: mmpretrain's tokens and features, the affinities of the paper, and what AReAM trains in it."""

import numpy as np
import pytest
import reference
import torch
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from mmengine.structures import PixelData
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from aream_mm.engine.measuring import entropy_of_layers
from aream_mm.evaluation import AffinityProfile
from aream_mm.models import AttentionConformer
from aream_mm.registry import MODELS

SMALL = dict(embed_dims=24, channel_ratio=0.25, num_heads=3, depths=6)  # 64 channels at the end of the CNN
LAYERS, FIRST_DEEP = range(6), 4
close = dict(rtol=1e-4, atol=1e-5)


@pytest.fixture(scope='module', autouse=True)
def scope():
    init_default_scope('mmseg')


def scramble(model):
    """Weights and statistics none of which is neutral, and attention that is far from uniform."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight[0].numel() ** -0.5)
                weight.mul_(2 if 'qkv' in name else 1)
            else:
                weight.uniform_(*((0.5, 1.5) if name.endswith('weight') else (-0.2, 0.2)))
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
    model.eval()  # mmpretrain's backbones return None
    return model


def theirs(arch=SMALL):
    return scramble(MODELS.build(dict(type='mmpretrain.Conformer', arch=arch)))


@pytest.fixture
def small():
    return scramble(AttentionConformer(SMALL))


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64)


@pytest.fixture
def segmentor():
    """A segmentor of 5 classes in evaluation mode, and what it is trained on: images, and samples with their tags."""
    model = MODELS.build(
        dict(
            type='aream_mm.CAMSegmentor',
            backbone=dict(type='aream_mm.AttentionConformer', arch=SMALL),
            head=dict(type='aream_mm.CAMHead', num_classes=5, in_channels=64, kernel_size=1, token_channels=24),
            attention_loss=dict(type='aream_mm.AReAMLoss', layer_index=FIRST_DEEP),
        )
    )
    return scramble(model)


@pytest.fixture
def tagged(make_samples):
    return make_samples(torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]))


def attention_reference(conformer, images):
    """Affinity (L, B, P, P) and mean logits (L, B, P, P) by loops, from the inputs of the layers' qkv."""
    blocks = [module for name, module in conformer.named_modules() if name.endswith('attn')]
    inputs = []
    hooks = [block.qkv.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for block in blocks]
    with torch.no_grad():
        conformer(images)
    for hook in hooks:
        hook.remove()
    affinities, logits = [], []
    for block, x in zip(blocks, inputs, strict=True):
        weight, bias = (t.detach().double().numpy() for t in (block.qkv.weight, block.qkv.bias))
        maps = [reference.attention(image.double().numpy(), weight, bias, SMALL['num_heads']) for image in x]
        affinities.append(np.stack([affinity[1:, 1:] for _, affinity, _ in maps]))
        logits.append(np.stack([mean_logits[1:, 1:] for _, _, mean_logits in maps]))
    return torch.from_numpy(np.stack(affinities)).float(), torch.from_numpy(np.stack(logits)).float()


def test_affinity_and_mean_logits_equal_per_head_reference(small, images):
    affinity, mean_logits = attention_reference(small, images)
    assert len(affinity) == small.num_layers and affinity.std(dim=-1).mean() > 0.01
    with torch.no_grad():
        attended = small(images, dict(enumerate(torch.eye(6))), LAYERS)
    assert_close(attended.patch_affinity, affinity, **close)
    assert_close(attended.mean_logits, mean_logits, **close)
    assert attended.class_affinity is None


@pytest.mark.parametrize('affinity', [None, dict.fromkeys(LAYERS, 1.0)], ids=['fused', 'collected'])
@pytest.mark.parametrize('size', [(64, 64), (48, 96), (112, 16)])
def test_both_branches_equal_mmpretrain(tmp_path, size, affinity):
    published, images = theirs(), torch.rand(2, 3, *size)
    torch.save(published.state_dict(), tmp_path / 'small.pth')
    ours = AttentionConformer(SMALL, pretrained=str(tmp_path / 'small.pth')).eval()
    ours.init_weights()
    outputs = []
    for i in range(2, 7):
        published.get_submodule(f'conv_trans_{i}').register_forward_hook(lambda *args: outputs.append(args[-1]))
    with torch.no_grad():
        published(ours.normalize(images))
        attended = ours(images, affinity, token_layers=LAYERS)
    for got, (_, tokens) in zip(attended.layer_tokens[1:], outputs, strict=True):
        assert_close(got, tokens[:, 1:], **close)
    features, tokens = outputs[-1]
    assert_close(attended.class_tokens, tokens[:, :1], **close)
    # The last block keeps its resolution: theirs is every other place of it.
    assert attended.features.shape[-2:] == (size[0] // 16, size[1] // 16)
    assert_close(attended.features[..., ::2, ::2], features, **close)


def test_images_are_normalised_as_mmpretrain_does(small, images):
    cfg = get_config('mmpretrain::conformer/conformer-small-p16_8xb128_in1k.py')
    settings = {key: cfg.data_preprocessor[key] for key in ('mean', 'std', 'to_rgb')}
    preprocessor = MODELS.build(dict(type='mmpretrain.ClsDataPreprocessor', **settings))
    bgr = (images * 255).flip(1)
    assert_close(small.normalize(images), preprocessor(dict(inputs=bgr))['inputs'], rtol=1e-3, atol=1e-3)


def test_gradients_of_collected_path_equal_fused(small, images):
    gradients = []
    for affinity in (None, dict.fromkeys(LAYERS, 1.0)):
        small.zero_grad()
        small(images, affinity).features.square().mean().backward()
        gradients.append(small.conformer.trans_1.attn.qkv.weight.grad.clone())
    assert gradients[0].any()
    assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_mean_logits_and_tokens_come_in_layer_order_and_only_where_asked(small, images):
    with torch.no_grad():
        every, some = small(images, {}, LAYERS, LAYERS), small(images, None, (1, 4), (0, 5))
    assert torch.equal(some.mean_logits, every.mean_logits[[1, 4]])
    assert torch.equal(some.layer_tokens, every.layer_tokens[[0, 5]])
    assert some.patch_affinity is None and every.patch_affinity is None


@pytest.mark.parametrize('size', [(60, 64), (64, 60)])
def test_other_image_sizes_are_refused_with_the_patch_size(small, size):
    with pytest.raises(ValueError, match=f'multiples of the patch size 16, got {size[0]}×{size[1]}'):
        small(torch.rand(1, 3, *size))


def test_layers_outside_the_network_are_refused(small, images):
    with pytest.raises(ValueError, match=r'AttentionConformer: expected layers in 0..5, got \[6, -1\]'):
        small(images, {6: 1.0}, [0], [-1])


def test_class_map_is_read_from_the_cnn_and_class_logits_from_the_class_token(segmentor, images):
    head = segmentor.head
    with torch.no_grad():
        attended = segmentor.backbone(images)
        class_map, logits = head(attended)
        expected = torch.einsum('bdhw,cd->bchw', attended.features, head.class_map.weight[:, :, 0, 0])
        token_logits = head.token_logits(attended.class_tokens[:, 0])
    assert_close(class_map, expected + head.class_map.bias[:, None, None], **close)
    assert torch.equal(logits['class'], token_logits)


def test_cam_is_the_cnns_propagated_by_the_mean_affinity_of_the_transformer(segmentor, images):
    affinity = attention_reference(segmentor.backbone, images)[0].mean(dim=0)
    with torch.no_grad():
        cam = segmentor.raw_cam(images, segmentor.settings_with(mirror=False)).cams[0].cam
        class_map = segmentor.encode_decode(images, []).relu()
    expected = [reference.propagate(*(t.numpy() for t in pair)) for pair in zip(class_map, affinity, strict=True)]
    assert cam.std() > 0
    assert_close(cam, torch.from_numpy(np.stack(expected)).float(), **close)


def reached(model):
    return {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}


def test_aream_gradient_reaches_the_deep_layers_and_through_the_coupling_the_cnn(segmentor, images, tagged):
    segmentor.loss(images, tagged)['loss_aream'].backward()
    names = reached(segmentor)
    for layer in range(FIRST_DEEP, 6):
        block = segmentor.get_submodule(f'backbone.conformer.conv_trans_{layer + 1}.trans_block')
        query, key, value = block.attn.qkv.weight.grad.chunk(3)
        assert query.any() and key.any(), layer
    # Z is made before the values of the last layer are read; nothing after it takes part.
    assert not value.any()
    last = 'backbone.conformer.conv_trans_6.'
    after = [
        f'{last}{part}' for part in ('fusion_block.', 'expand_block.', 'trans_block.attn.proj.', 'trans_block.ffn.')
    ]
    assert not [name for name in names if name.startswith(('head.', *after))]
    assert {'backbone.conformer.conv1.weight', f'{last}cnn_block.conv2.weight'} <= names


def test_label_cam_carries_no_gradient(segmentor, images, tagged):
    segmentor.train()
    label_masks, masks = segmentor.label_masks, []
    segmentor.label_masks = lambda *arguments: masks.append(label_masks(*arguments)) or masks[-1]
    segmentor.loss(images, tagged)['loss_aream'].backward()
    gradients = {name: weight.grad for name, weight in segmentor.named_parameters() if weight.grad is not None}
    assert gradients
    # The batch and, for the label, its mirror images: each in training mode.
    assert segmentor.backbone.conformer.bn1.num_batches_tracked == 2
    segmentor.zero_grad()
    segmentor.label_masks = lambda *_: masks[0]
    segmentor.loss(images, tagged)['loss_aream'].backward()
    for name, gradient in gradients.items():
        assert_close(segmentor.get_parameter(name).grad, gradient, rtol=1e-5, atol=1e-8)


def test_classification_trains_every_weight(segmentor, images, tagged):
    segmentor.attention_loss = None
    segmentor.train().parse_losses(segmentor.loss(images, tagged))[0].backward()
    assert [name for name, weight in segmentor.named_parameters() if weight.grad is None] == []


def test_the_affinity_profile_and_the_layer_entropy_measure_it(segmentor, images, tagged):
    for sample in tagged:
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 6, (1, 64, 64)))
    profile = AffinityProfile(segmentor)
    profile.update(images, tagged)
    rows = profile.compute()
    assert {f'layer {i}' for i in LAYERS} <= set(rows)
    entropy = entropy_of_layers(segmentor, images, segmentor.tags(tagged))
    assert entropy.shape == (6,) and 0 < entropy.min() < entropy.max() <= 4  # 16 patches have 4 bits


def published_keys():
    """The names in the published files, spelt out, so that mmpretrain's code is not the only source."""
    linear = ('weight', 'bias')
    norm = (*linear, 'running_mean', 'running_var', 'num_batches_tracked')
    half = {'conv_project': linear}
    transformer = dict.fromkeys(('ln1', 'attn.qkv', 'attn.proj', 'ln2', 'ffn.layers.0.0', 'ffn.layers.1'), linear)

    def block(residual):
        parts = {f'conv{i}': ('weight',) for i in (1, 2, 3)} | {f'bn{i}': norm for i in (1, 2, 3)}
        return parts | ({'residual_conv': ('weight',), 'residual_bn': norm} if residual else {})

    modules = {'conv1': ('weight',), 'bn1': norm, 'trans_patch_conv': linear, 'trans_norm': linear}
    modules |= {f'conv_1.{part}': kinds for part, kinds in block(residual=True).items()}
    modules |= {f'trans_1.{part}': kinds for part, kinds in transformer.items()}
    for i in range(2, 13):
        stage = dict(cnn_block=block(residual=i in (5, 9)), fusion_block=block(residual=i == 12))
        stage |= dict(squeeze_block=half | {'ln': linear}, expand_block=half | {'bn': norm}, trans_block=transformer)
        for name, parts in stage.items():
            modules |= {f'conv_trans_{i}.{name}.{part}': kinds for part, kinds in parts.items()}
    return {'cls_token', *(f'{module}.{kind}' for module, kinds in modules.items() for kind in kinds)}


@pytest.mark.parametrize('prefix', ['backbone.', ''], ids=['classifier', 'Conformer alone'])
def test_weights_of_conformer_s_load_strictly(tmp_path, prefix):
    published = MODELS.build(dict(type='mmpretrain.Conformer', arch='small')).state_dict()
    assert published.keys() == published_keys()
    weights = {f'{prefix}{key}': torch.full_like(value, 3) for key, value in published.items()}
    if prefix:
        head = MODELS.build(dict(type='mmpretrain.ConformerHead', num_classes=10, in_channels=[1024, 384]))
        weights |= {f'head.{key}': value for key, value in head.state_dict().items()}
    torch.save(dict(state_dict=weights, meta={}) if prefix else weights, tmp_path / 'conformer-s.pth')
    ours = AttentionConformer('small', pretrained=str(tmp_path / 'conformer-s.pth'))
    assert not (ours.conformer.conv_trans_12.trans_block.attn.qkv.weight == 3).any()
    ours.init_weights()
    assert all((value == 3).all() for value in ours.state_dict().values())
    assert ours.num_layers == 12


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (lambda weights: weights.pop('conv_trans_4.trans_block.attn.qkv.weight'), 'Missing.*conv_trans_4'),
        (lambda weights: weights.update(pos_embed=torch.zeros(1)), 'Unexpected.*pos_embed'),
        (lambda weights: weights.update(cls_token=torch.zeros(1, 1, 48)), 'size mismatch for cls_token'),
    ],
)
def test_other_weights_are_refused_with_the_file(tmp_path, spoil, message):
    weights = theirs().state_dict()
    spoil(weights)
    torch.save(weights, tmp_path / 'spoilt.pth')
    with pytest.raises(ValueError, match=rf"(?s)spoilt.pth: expected weights of mmpretrain's Conformer.*{message}"):
        AttentionConformer(SMALL, pretrained=str(tmp_path / 'spoilt.pth')).init_weights()


def test_missing_pretrained_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='expected a file, got .*nowhere.pth'):
        AttentionConformer(SMALL, pretrained=str(tmp_path / 'nowhere.pth')).init_weights()


def test_pretrained_weights_are_read_only_once(tmp_path):
    torch.save(theirs().state_dict(), tmp_path / 'small.pth')
    ours = AttentionConformer(SMALL, pretrained=str(tmp_path / 'small.pth'))
    ours.init_weights()
    nn.init.zeros_(ours.conformer.cls_token)
    ours.init_weights()
    assert not ours.conformer.cls_token.any()


def test_without_pretrained_weights_init_weights_makes_mmpretrains_random_ones():
    ours = AttentionConformer(SMALL)
    ours.init_weights()
    assert not ours.conformer.conv_trans_2.fusion_block.bn3.weight.any()  # zero_init_last_bn
    assert 0.015 < ours.conformer.trans_1.attn.qkv.weight.std() < 0.025


@pytest.mark.parametrize(('arch', 'parameters'), [('tiny', 23_524_704), ('small', 37_673_424), ('base', 83_289_136)])
def test_pretrained_true_takes_mmpretrains_address_and_the_architecture_has_the_published_size(
    monkeypatch, arch, parameters
):
    addresses = []

    def load(address, map_location):
        addresses.append(address)
        return dict(state_dict={})

    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint', load)
    monkeypatch.setattr('aream_mm.models.conformer.download', lambda url: url)
    ours = AttentionConformer(arch, pretrained=True)
    tokens, features = ours.conformer.embed_dims, ours.conformer.conv_trans_12.fusion_block.conv3.out_channels
    beside = 2 * tokens + 1000 * (tokens + 1) + 1000 * (features + 1)  # the final norm and two classifiers
    assert sum(weight.numel() for weight in ours.parameters()) + beside == parameters
    with pytest.raises(ValueError, match=rf'(?s)conformer-{arch}-p16.*Missing key'):
        ours.init_weights()
    assert addresses[0].startswith('https://') and f'/conformer-{arch}-p16_3rdparty' in addresses[0]


def test_architectures_without_published_weights_or_three_stages_are_refused():
    with pytest.raises(ValueError, match="expected arch 'tiny', 'small' or 'base' for pretrained=True, got .*24"):
        AttentionConformer(SMALL, pretrained=True)
    with pytest.raises(ValueError, match='expected depths that are a multiple of 3, got 4'):
        AttentionConformer(dict(SMALL, depths=4))


@pytest.mark.parametrize('branch', ['trans_block.attn', 'trans_block.ffn', 'fusion_block'])
def test_drop_path_acts_on_both_branches_and_in_training_only(images, branch):
    model = scramble(AttentionConformer(SMALL, drop_path_rate=0.5))
    with torch.no_grad():
        assert torch.equal(model(images).features, model(images).features)
        for i in range(2, 7):
            model.conformer.get_submodule(f'conv_trans_{i}.{branch}').train()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        features = [model(images).features for _ in range(4)]
    assert any(not torch.equal(features[0], other) for other in features[1:])
