"""Plain CAMs: a single class token, a transformer without any, a CNN alone. They train and predict."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from options import load_config
from torch.testing import assert_close

from aream_mm.models import cam
from aream_mm.registry import MODELS

CONFIGS = Path(__file__).parents[1] / 'configs'
CNN = dict(type='aream_mm.TimmCNN', name='test_efficientnet', out_indices=(3, 4), output_stride=16)


@pytest.fixture
def build(toy_config):
    """build(kind): a segmentor without AReAM and without propagation."""

    def build(kind):
        toy_config.update(attention_loss=None, test_cfg=dict(propagate_layers=()))
        if kind == 'single token':
            toy_config['backbone']['num_class_tokens'] = 1
            toy_config['head']['token_channels'] = 24
        elif kind == 'no token':
            toy_config['backbone'].update(name='vit_base_patch16_siglip_224', num_class_tokens=0)
        else:
            toy_config['backbone'] = dict(type='aream_mm.CNNBackbone', cnn=CNN)
            toy_config['head'].update(in_channels=112, kernel_size=1)
        return MODELS.build(toy_config)

    return build


KINDS = pytest.mark.parametrize('kind', ['single token', 'no token', 'cnn'])


@KINDS
def test_training_lowers_every_loss_that_there_is(build, golden, make_samples, kind):
    model, samples = build(kind).train(), make_samples(golden['labels'])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history = []
    for _ in range(8):
        losses = model.loss(golden['denormalized'], samples)
        history.append({name: loss.item() for name, loss in losses.items()})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert set(history[0]) == ({'loss_class', 'loss_patch'} if kind == 'single token' else {'loss_patch'})
    assert all(history[-1][name] < history[0][name] for name in history[0])


@KINDS
def test_the_cam_is_the_class_map_alone(build, golden, make_samples, kind):
    model, images, samples = build(kind).eval(), golden['denormalized'], make_samples(golden['labels'])
    model.test_cfg = model.test_cfg.__class__(propagate_layers=(), mirror=False)
    with torch.no_grad():
        class_map, logits = model._forward(images)
        predictions = model.predict(images, samples)
    expected = cam.normalize(cam.upsample(class_map.relu(), images.shape[-2:]))
    for i, prediction in enumerate(predictions):
        assert_close(prediction.cam.data, expected[i, prediction.cam_classes - 1], rtol=1e-5, atol=1e-5)
    scores = torch.stack(list(logits.values())).mean(dim=0).sigmoid()
    assert_close(torch.stack([prediction.pred_score for prediction in predictions]), scores)


@KINDS
def test_prediction_brings_any_image_size_to_whole_patches(build, make_samples, kind):
    model = build(kind).eval()
    images = torch.rand(1, 3, 75, 50)
    with torch.no_grad():
        (prediction,) = model.predict(images, make_samples(torch.ones(1, 5), size=(75, 50)))
    assert prediction.pred_sem_seg.data.shape == (1, 75, 50)


@pytest.mark.parametrize('kind', ['single token', 'no token'])
def test_patches_still_have_an_affinity_but_classes_have_none(build, golden, kind):
    backbone = build(kind).backbone
    attended = backbone(golden['denormalized'], {3: 1.0})
    assert attended.class_affinity is None
    assert attended.patch_affinity.shape == (2, 16, 16)


def test_levels_of_a_cnn_are_brought_to_the_finest(build):
    backbone = build('cnn').backbone
    assert backbone.patch_size == 16
    config = dict(type='aream_mm.CNNBackbone', cnn=dict(CNN, out_indices=(2, 4)))
    finer = MODELS.build(config)
    assert finer.patch_size == 8
    assert finer(torch.rand(1, 3, 64, 96)).features.shape[-2:] == (8, 12)


def test_layers_of_a_cnn_are_refused(build, toy_config):
    with pytest.raises(ValueError, match=r'CNNBackbone: expected no layers.*got \[3\]'):
        build('cnn').backbone(torch.rand(1, 3, 64, 64), logit_layers=[3])
    toy_config['attention_loss'] = dict(type='aream_mm.AReAMLoss', layer_index=3)
    with pytest.raises(ValueError, match='layer_index'):
        MODELS.build(toy_config)


def test_a_head_for_a_class_token_is_refused_where_there_is_none(build, toy_config):
    toy_config['head']['token_channels'] = 24
    with pytest.raises(ValueError, match='no token_channels for a network without class tokens'):
        build('cnn')._forward(torch.rand(1, 3, 64, 64))


def test_a_head_for_a_single_class_token_is_refused_where_there_are_several(toy_config):
    toy_config['head']['token_channels'] = 24
    with pytest.raises(ValueError, match='expected a single class token for token_channels, got 5'):
        MODELS.build(toy_config)._forward(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize('name', ['vit_cam_voc', 'mctformer_voc', 'cnn_cam_voc'])
def test_the_baselines_have_no_aream(name):
    cfg = load_config(CONFIGS / f'{name}.py')
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    assert model.attention_loss is None
    propagates = model.test_cfg.propagate_layers is None and model.backbone.num_layers > 0
    assert propagates == (name == 'mctformer_voc')
    assert 'aream_mm.PseudoMaskHook' in [hook.type for hook in cfg.custom_hooks]
    assert 'aream_mm.WarmUpHook' not in [hook.type for hook in cfg.custom_hooks]
