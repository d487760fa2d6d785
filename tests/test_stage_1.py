"""Every config of stage 1 trains and predicts, and AReAM's loss reaches the deep layers and not the label CAM."""

from copy import deepcopy
from typing import NamedTuple

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, init_default_scope
from mmengine.structures import PixelData
from options import load_config
from test_config import CONFIGS, STAGE_1, data_of

from aream_mm.models import cam
from aream_mm.models.segmentor import CAMSegmentor
from aream_mm.registry import MODELS


class Built(NamedTuple):
    cfg: Config
    model: CAMSegmentor
    batch: dict  # two training images, as a data loader gives them, of 4 × 5 patches


def two_samples(dataset, model):
    """The first two of a data set, and the same with images of 4 × 5 patches, for which the networks are quick."""
    samples = [dataset[0], dataset[1]]
    size = (4 * model.backbone.patch_size, 5 * model.backbone.patch_size)
    small = [{**sample, 'inputs': cam.upsample(sample['inputs'][None], size)[0].byte()} for sample in deepcopy(samples)]
    for sample in small:
        if 'gt_sem_seg' in sample['data_samples']:  # what is image
            sample['data_samples'].gt_sem_seg = PixelData(data=torch.zeros(1, *size, dtype=torch.uint8))
    return samples, pseudo_collate(small)


@pytest.fixture(scope='module', params=STAGE_1, ids=lambda path: path.stem)
def built(request, toy_folders):
    """A config and its model with random weights; the tests change the weights, and none relies on them."""
    if 'dinov3' in request.param.stem and not timm.is_model('vit_small_patch16_dinov3'):
        pytest.skip('this timm has no DINOv3')
    torch.manual_seed(0)
    cfg = load_config(request.param, dict(data_root=str(toy_folders[data_of(request.param)])))
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    if model.attention_loss and not model.attention_loss.measured:
        model.attention_loss.weigh_layers(torch.arange(model.backbone.num_layers))
    samples, batch = two_samples(DATASETS.build(cfg.train_dataloader.dataset), model)
    for sample in samples:
        assert not any(side % model.backbone.patch_size for side in sample['inputs'].shape[-2:])
    return Built(cfg, model, batch)


def test_a_training_step_changes_what_is_trained_and_nothing_else(built):
    cfg, model, batch = built
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    logged = model.train().train_step(batch, build_optim_wrapper(model, cfg.optim_wrapper))
    assert {'loss', 'loss_patch'} <= logged.keys() and ('loss_aream' in logged) == bool(cfg.model.attention_loss)
    assert all(torch.isfinite(value) for value in logged.values())
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert {'head.class_map.weight', 'head.class_map.bias'} <= changed
    assert any(name.startswith('backbone.') for name in changed) and not changed & frozen


def test_padding_is_known_from_the_image_and_takes_no_part_in_the_loss_on_attention(toy_folders, monkeypatch):
    """The images have 96 × 80 pixels and are brought to at most 640 by 533: at the right or below is padding."""
    cfg = load_config(CONFIGS / 'aream_conformer_voc.py', dict(data_root=str(toy_folders['voc'])))
    init_default_scope(cfg.default_scope)
    resize = cfg.train_dataloader.dataset.pipeline[2]
    assert resize.type == 'RandomChoiceResize'
    resize.scales = [(320, 320)]
    item = DATASETS.build(cfg.train_dataloader.dataset)[0]
    area, (red, *_) = item['data_samples'].gt_sem_seg.data[0], item['inputs']
    assert area.shape == red.shape == (384, 384)
    padded = area == 255
    assert not area[:267, :320].any() and padded[267:].all() and padded[:, 320:].all()
    assert (item['inputs'].permute(1, 2, 0)[padded] == torch.tensor([104, 116, 124])).all()
    given = []
    model = MODELS.build(cfg.model)
    monkeypatch.setattr(model.attention_loss, 'forward', lambda attended, masks: given.append(masks) or masks.sum() * 0)
    model.loss(**model.data_preprocessor(pseudo_collate([item]), training=True))
    assert (given[0][0][padded] == 255).all() and (given[0][0][~padded] != 255).any()


def test_masks_have_the_size_of_the_photograph_and_its_classes(built):
    cfg, model, _ = built
    samples, batch = two_samples(DATASETS.build(cfg.test_dataloader.dataset), model)
    with torch.no_grad():
        predictions = model.eval().test_step(batch)
    for sample, prediction in zip(samples, predictions, strict=True):
        tags = (1 + sample['data_samples'].gt_score.nonzero().flatten()).tolist()
        mask = prediction.pred_sem_seg.data
        assert mask.shape == (1, *sample['data_samples'].ori_shape)
        assert prediction.cam_classes.tolist() == tags
        assert set(mask.unique().tolist()) <= {0, *tags}
    settings = model.settings_with(background=0.0)  # whatever the random weights say
    everywhere = model.predict(**model.data_preprocessor(batch), settings=settings)
    assert any(prediction.pred_sem_seg.data.any() for prediction in everywhere)


def test_the_images_of_validation_and_hooks_are_found(built):
    hooks = [hook.dataloader for hook in built.cfg.custom_hooks if 'dataloader' in hook]
    assert hooks or not built.cfg.custom_hooks  # an experiment writes its masks by itself
    for loader in (built.cfg.val_dataloader, *hooks):
        assert DATASETS.build(loader.dataset)[0]['inputs'].ndim == 3


def with_gradient(model):
    return {name for name, weight in model.named_parameters() if weight.grad is not None}


def test_the_loss_of_aream_reaches_the_deep_layers_and_stays_out_of_the_label_cam(built, monkeypatch):
    """A gradient has what the mean logits of the deep layers are made of: no head, no CNN that stands beside."""
    _, model, batch = built
    if model.attention_loss is None:
        pytest.skip('a baseline')
    has_graph, reliable_masks = [], cam.reliable_masks
    monkeypatch.setattr(
        cam,
        'reliable_masks',
        lambda scores, *others: has_graph.append(scores.requires_grad) or reliable_masks(scores, *others),
    )
    data = model.train().data_preprocessor(batch, training=True)
    model.zero_grad()
    model.loss(**data)['loss_aream'].backward()
    assert has_graph == [False]
    layers = [module for name, module in model.backbone.named_modules() if name.endswith('attn.qkv')]
    assert len(layers) == model.backbone.num_layers
    deep = [layers[i].weight for i in model.attention_loss.logit_layers if layers[i].weight.requires_grad]
    assert deep
    for weight in deep:
        query, key, _ = weight.grad.chunk(3)
        assert query.any() and key.any()
    reached = with_gradient(model)
    model.zero_grad()
    model.backbone(data['inputs'], logit_layers=model.attention_loss.logit_layers).mean_logits.sum().backward()
    assert reached == with_gradient(model)
    assert not any(name.startswith('head.') for name in reached)
