"""A training run of the authors' program, step by step, through the optimiser of aream_vit_voc.py, in float64."""

import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import DATA, ROOT
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import load_checkpoint
from mmseg.structures import SegDataSample
from options import load_config
from torch.testing import assert_close

from aream_mm.registry import MODELS

STEPS, CLASSIFICATION_ALONE = 24, 8
RATE = 5e-4  # theirs for this run, without a schedule


@pytest.fixture(scope='module')
def trajectory():
    """Batches, losses and labels of every step: see `authors_trajectory.npz`."""
    with np.load(DATA / 'authors_trajectory.npz') as arrays:
        return dict(arrays)


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
    """converted(name): a checkpoint of theirs, converted on the command line."""
    folder = tmp_path_factory.mktemp('trajectory')

    def convert(name):
        path = folder / f'{name}.pth'
        converter = ROOT / 'tools' / 'converters' / 'authors_checkpoint.py'
        source = DATA / f'authors_trajectory_{name}.pth'
        subprocess.run([sys.executable, converter, source, path], check=True)
        return str(path)

    return convert


@pytest.fixture
def recipe():
    cfg = load_config(ROOT / 'configs' / 'aream_vit_voc.py')
    init_default_scope(cfg.default_scope)
    return cfg


@pytest.fixture
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Step(NamedTuple):
    losses: dict[str, float]
    expected: dict[str, float]
    labels: torch.Tensor | None


@pytest.fixture
def train(trajectory, converted, recipe, toy_config, in_float64):
    """train(weights, steps): our steps on their batches from their start, and the model after them."""

    def run(weights, steps):
        toy_config['attention_loss']['weights'] = weights
        model = MODELS.build(toy_config)
        load_checkpoint(model, converted('start'), map_location='cpu', strict=weights == 'uniform')
        if weights == 'entropy':
            model.attention_loss.weigh_layers(torch.from_numpy(trajectory['entropies']))
        recipe.optim_wrapper.optimizer.lr = RATE
        optimizer = build_optim_wrapper(model.train(), recipe.optim_wrapper)
        labels, label_masks = [], model.label_masks
        model.label_masks = lambda *arguments: labels.append(label_masks(*arguments)) or labels[-1]
        done = []
        for step in range(steps):
            model.warm_up = step < CLASSIFICATION_ALONE
            images = torch.from_numpy(trajectory['images'][step]).permute(0, 3, 1, 2).float() / 255
            samples = []
            for tags in trajectory['tags'][step]:
                samples.append(SegDataSample(metainfo=dict(ori_shape=(64, 64))))
                samples[-1].set_field(torch.from_numpy(tags), 'gt_score')
            losses = model.loss(images.double(), samples)
            expected = {
                f'loss_{ours}': factor * trajectory[f'loss_{theirs}_{weights}'][step]
                for ours, theirs, factor in (('class', 'class', 1), ('patch', 'patch', 1), ('aream', 'aff', 0.1))
            }
            done.append(
                Step({key: loss.item() for key, loss in losses.items()}, expected, labels[-1] if labels else None)
            )
            optimizer.update_params(sum(losses.values()))
        return done, model

    return run


@pytest.mark.parametrize('weights', ['uniform', 'entropy'])
def test_classification_and_the_first_label_are_theirs(train, trajectory, weights):
    """What has no loss on the attention behind it: nine classification losses, and the label of the ninth step."""
    steps, _ = train(weights, CLASSIFICATION_ALONE + 1)
    for number, step in enumerate(steps):
        for key in ('loss_class', 'loss_patch'):
            assert step.losses[key] == pytest.approx(step.expected[key], abs=1e-9), (number, key)
    np.testing.assert_array_equal(steps[-1].labels.numpy(), trajectory[f'labels_{weights}'][0])
    assert 'loss_aream' in steps[-1].losses and all('loss_aream' not in step.losses for step in steps[:-1])


@pytest.mark.xfail(
    strict=True,
    reason='L_aff of these labels and these weights is theirs to 2e-8 in authors_toy.npz, and to 3e-4 in this run',
)
@pytest.mark.parametrize('weights', ['uniform', 'entropy'])
def test_every_step_of_the_training_is_theirs(train, trajectory, converted, weights):
    steps, model = train(weights, STEPS)
    for number, step in enumerate(steps):
        for key, expected in step.expected.items():
            assert step.losses.get(key, 0) == pytest.approx(expected, abs=1e-9), (number, key)
    labels = torch.stack([step.labels for step in steps[CLASSIFICATION_ALONE:]])
    np.testing.assert_array_equal(labels.numpy(), trajectory[f'labels_{weights}'])
    theirs, ours = torch.load(converted(f'end_{weights}'))['state_dict'], model.state_dict()
    assert theirs.keys() == ours.keys() - {'attention_loss.layer_weights'}
    for key, value in theirs.items():
        assert_close(ours[key], value, rtol=0, atol=1e-8)


def test_the_rate_of_every_epoch_is_theirs(trajectory, recipe, toy_config):
    model = MODELS.build(toy_config)
    optimizer = build_optim_wrapper(model, recipe.optim_wrapper)
    schedule = PARAM_SCHEDULERS.build(recipe.param_scheduler, default_args=dict(optimizer=optimizer))
    rates = []
    for _ in range(recipe.train_cfg.max_epochs):
        rates.append({group['lr'] for group in optimizer.param_groups})
        schedule.step()
    assert all(len(each) == 1 for each in rates)
    np.testing.assert_allclose([rate for (rate,) in rates], trajectory['learning_rates'], rtol=1e-12)


def test_the_token_decays_and_positions_norms_and_biases_do_not(recipe, toy_config):
    model = MODELS.build(toy_config)
    groups = build_optim_wrapper(model, recipe.optim_wrapper).param_groups
    decayed = {id(weight) for group in groups if group['weight_decay'] for weight in group['params']}
    names = {name for name, weight in model.named_parameters() if id(weight) in decayed}
    assert {group['weight_decay'] for group in groups} == {0, 0.05}
    assert {'backbone.class_tokens', 'backbone.blocks.0.attn.qkv.weight', 'head.class_map.weight'} <= names
    kept = ('bias', 'pos_embed', 'norm1.weight', 'norm2.weight')
    assert not [name for name in names if name.endswith(kept)]
    assert not [name for name, weight in model.named_parameters() if name not in names and not name.endswith(kept)]


@pytest.mark.parametrize('photo', [0, 1])
def test_cams_of_photographs_whose_sides_are_no_multiples_of_the_patch_are_theirs(
    trajectory, converted, recipe, toy_config, photo
):
    """Theirs are in float32, whose rounding the normalisation of these nearly flat maps raises to 1e-4."""
    assert recipe.model.test_cfg.fit == 'pad'
    model = MODELS.build(dict(toy_config, test_cfg=dict(fit='pad'))).eval()
    load_checkpoint(model, converted('end_uniform'), map_location='cpu', strict=True)
    image, classes = trajectory[f'photo_{photo}'], trajectory[f'photo_classes_{photo}']
    sample = SegDataSample(metainfo=dict(ori_shape=image.shape[:2]))
    sample.set_field(torch.zeros(5).index_fill_(0, torch.from_numpy(classes), 1), 'gt_score')
    with torch.no_grad():
        (found,) = model.predict(torch.from_numpy(image).permute(2, 0, 1)[None] / 255, [sample])
        (resized,) = model.predict(
            torch.from_numpy(image).permute(2, 0, 1)[None] / 255, [sample.clone()], model.settings_with(fit='resize')
        )
    expected = torch.from_numpy(trajectory[f'photo_cam_{photo}'])
    assert_close(found.cam.data, expected, rtol=0, atol=2e-4)
    assert (resized.cam.data - expected).abs().max() > 0.05
