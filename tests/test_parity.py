"""The authors' released program on a toy model, reproduced to 1e-5 by our components and the converted checkpoint."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner import load_checkpoint
from torch.testing import assert_close

from aream_mm.evaluation import threshold_sweep
from aream_mm.models import AReAMLoss, cam
from aream_mm.models.aream import affinity_loss, layer_entropy, pair_labels
from aream_mm.models.attention import Attended
from aream_mm.registry import MODELS

NUM_CLASSES, NUM_LAYERS, FIRST_DEEP = 5, 6, 3
VARIANTS = ('uni', 'ent')
close = dict(rtol=1e-5, atol=1e-5)


@pytest.fixture
def attended(toy_segmentor, golden):
    """Everything the backbone exposes, with one affinity for each layer."""
    one_hot = torch.eye(NUM_LAYERS)
    with torch.no_grad():
        return toy_segmentor.backbone(golden['denormalized'], dict(enumerate(one_hot)), range(NUM_LAYERS))


@pytest.fixture(params=VARIANTS)
def variant(request, toy_segmentor, golden):
    """'uni', or 'ent' with the toy segmentor's loss weighted by the golden layer weights."""
    if request.param == 'ent':
        toy_segmentor.attention_loss = AReAMLoss(FIRST_DEEP, weights='entropy', num_layers=NUM_LAYERS)
        toy_segmentor.attention_loss.layer_weights.copy_(golden['ent'])
    return request.param


@pytest.fixture
def predictions(toy_segmentor, golden, make_samples):
    with torch.no_grad():
        return toy_segmentor.predict(golden['denormalized'], make_samples(golden['labels']))


def test_converted_checkpoint_loads_strictly(toy_config, converted_checkpoint):
    model = MODELS.build(toy_config)
    before = model.backbone.pos_embed.clone()
    load_checkpoint(model, converted_checkpoint, map_location='cpu', strict=True)
    assert (model.backbone.pos_embed - before).abs().max() > 0.01


def test_image_normalisation(toy_segmentor, golden):
    assert_close(toy_segmentor.backbone.normalize(golden['denormalized']), golden['x'], **close)


def test_affinity_of_each_layer(attended, golden):
    affinity = golden['attn_logits'].softmax(dim=-1).mean(dim=2)
    patches = affinity[:, :, NUM_CLASSES:, NUM_CLASSES:]
    assert_close(attended.patch_affinity, patches, **close)
    assert_close(attended.class_affinity, affinity[:, :, :NUM_CLASSES, NUM_CLASSES:].mean(dim=0), **close)


def test_mean_logits_of_each_layer(attended, golden):
    assert_close(attended.mean_logits, golden['attn_logits'].mean(dim=2)[..., NUM_CLASSES:, NUM_CLASSES:], **close)


def test_class_map_and_logits(toy_segmentor, attended, golden):
    class_map, logits = toy_segmentor.head(attended)
    assert_close(logits['class'], golden['class_logits'], **close)
    assert_close(logits['patch'], golden['patch_logits'], **close)
    # The sums that make small values are of terms as large as the highest, whose last digits depend on the CPU.
    rounding = 1e-6 * float(golden['relu_cam'].max())
    assert_close(cam.activate(class_map), golden['relu_cam'], rtol=1e-5, atol=rounding)


def test_rectangular_image_at_another_size(toy_segmentor, golden):
    backbone = toy_segmentor.backbone
    images = golden['x_rect'] * backbone.normalize.std + backbone.normalize.mean
    with torch.no_grad():
        attended = backbone(images, logit_layers=[NUM_LAYERS - 1])
        class_map, logits = toy_segmentor.head(attended)
    patches = golden['attn_logits_rect_last'].mean(dim=1)[:, NUM_CLASSES:, NUM_CLASSES:]
    assert_close(backbone.normalize(images), golden['x_rect'], **close)
    assert_close(attended.mean_logits[0], patches, **close)
    assert_close(logits['class'], golden['class_logits_rect'], **close)
    assert_close(logits['patch'], golden['patch_logits_rect'], **close)
    assert_close(class_map.relu(), golden['relu_cam_rect'], **close)


def test_label_cam(toy_segmentor, variant, golden):
    with torch.no_grad():
        raw = toy_segmentor.raw_cam(
            golden['denormalized'], toy_segmentor.test_cfg, toy_segmentor.attention_loss.label_affinity
        )
    tagged = cam.normalize(raw.at((64, 64), torch.arange(5).expand(2, -1))) * golden['labels'][:, :, None, None]
    assert_close(tagged, golden[f'train_cam_{variant}'], **close)


@pytest.mark.parametrize('name', VARIANTS)
def test_masks_at_low_and_high_background_score(toy_segmentor, golden, name):
    arguments = (golden[f'train_cam_{name}'], golden['labels'], golden['denormalized'], toy_segmentor.refiner)
    scores, tags, images, par = arguments
    classes, present = cam.present_classes(tags)
    planes = cam.refine(cam.select(scores, classes), present, images, par, backgrounds=(0.35, 0.55))
    for plane, key in zip(planes, (f'seg_low_{name}', f'seg_high_{name}'), strict=True):
        assert torch.equal(cam.class_ids(plane, F.pad(classes + 1, (1, 0))), golden[key])
    assert torch.equal(cam.reliable_masks(*arguments), golden[f'seg_{name}'])


def test_label_masks_from_images(toy_segmentor, variant, golden, label_masks):
    masks = label_masks(toy_segmentor, golden['denormalized'], golden['labels'])
    assert torch.equal(masks, golden[f'seg_{variant}'])


@pytest.mark.parametrize('name', VARIANTS)
def test_pair_labels(golden, name):
    assert torch.equal(pair_labels(golden[f'seg_{name}'], (4, 4)), golden[f'aff_{name}'])


def test_loss_of_each_layer(attended, golden, variant):
    losses = affinity_loss(attended.mean_logits[FIRST_DEEP:], golden[f'aff_{variant}'])
    assert_close(losses, golden[f'loss_per_layer_{variant}'], **close)


def test_training_losses_from_images(toy_segmentor, golden, variant, make_samples):
    assert toy_segmentor.attention_loss.layer_index == golden['layer_index'].item()
    losses = toy_segmentor.loss(golden['denormalized'], make_samples(golden['labels']))
    assert_close(losses['loss_aream'], 0.1 * golden[f'loss_{variant}'], rtol=1e-5, atol=1e-6)
    for name in ('class', 'patch'):
        logits, tags = golden[f'{name}_logits'], golden['labels']
        cross_entropy = -(tags * logits.sigmoid().log() + (1 - tags) * (-logits).sigmoid().log()).mean()
        assert_close(losses[f'loss_{name}'], cross_entropy, **close)


def test_gradient_with_respect_to_attention_logits(golden):
    logits = golden['attn_logits'].clone().requires_grad_()
    mean_logits = logits.mean(dim=2)[FIRST_DEEP:, :, NUM_CLASSES:, NUM_CLASSES:]
    aream = AReAMLoss(FIRST_DEEP, loss_weight=1.0, weights='entropy', num_layers=NUM_LAYERS)
    aream.layer_weights.copy_(golden['ent'])
    features = torch.empty(2, 1, 4, 4)
    loss = aream(Attended(None, features, mean_logits=mean_logits), golden['seg_ent'])
    loss.backward()
    assert_close(loss, golden['loss_ent'], **close)
    # The gradients themselves are below 3e-4.
    assert_close(logits.grad, golden['grad_attn_ent'], rtol=1e-5, atol=1e-9)
    unread = torch.ones_like(logits, dtype=torch.bool)
    unread[FIRST_DEEP:, ..., NUM_CLASSES:, NUM_CLASSES:] = False
    assert not logits.grad[unread].any()


def test_par(toy_segmentor, golden):
    assert_close(toy_segmentor.refiner(golden['denormalized'], golden['par_masks']), golden['par_out'], **close)


def test_inference_cam(predictions, golden):
    for i, prediction in enumerate(predictions):
        assert_close(prediction.cam.data, golden[f'infer_cam_{i}'], **close)
        assert torch.equal(prediction.cam_classes, golden['labels'][i].nonzero().flatten() + 1)


def test_layer_entropy(attended, golden):
    entropy = layer_entropy(golden['relu_cam'], attended.patch_affinity, golden['labels'])
    assert_close(entropy, golden['entropy'], **close)


def test_threshold_sweep_of_predictions(predictions, golden):
    cams = [(prediction.cam_classes, prediction.cam.data) for prediction in predictions]
    miou = threshold_sweep(cams, golden['gt'], golden['sweep_thresholds'], NUM_CLASSES + 1)
    assert_close(torch.from_numpy(miou), golden['sweep_miou'], **close)
