"""Settings of refiners, losses, hooks, schedules and measures: out of range or of another type, they are refused."""

import math

import numpy as np
import pytest
import torch
from mmengine import registry
from mmseg.utils import register_all_modules

WHOLE, NUMBER = [-1, 2.5, '3', None, True, [1]], [-0.1, '3', None, True, math.nan, math.inf, [1.0]]
COUNT, WIDTH = [*WHOLE, 0], [*NUMBER, 0]
MAYBE_COUNT = [value for value in COUNT if value is not None]
SWITCH = [0, 1, 'False', None, []]
LAYERS = [3, '3', [1.5], ['a'], [True], 1.0]
NET = dict(
    type='aream_mm.AffinityNet',
    backbone={},
    in_channels=(),
    channels=(),
    data_preprocessor=dict(type='SegDataPreProcessor'),
)
LOADER = dict(dataset={})
SETTINGS = {
    ('MODELS', 'PAR'): ({}, dict(dilations=[4, '4', [], [0], [1.5], [-1], None], num_iters=WHOLE)),
    ('MODELS', 'DenseCRF'): (
        {},
        dict(
            num_iters=WHOLE,
            label_confidence=[0, 1, 1.5, -0.1, '0.7', True, math.nan],
            gaussian_sxy=WIDTH,
            bilateral_sxy=WIDTH,
            bilateral_srgb=WIDTH,
            gaussian_compat=NUMBER,
            bilateral_compat=NUMBER,
            workers=MAYBE_COUNT,
        ),
    ),
    ('MODELS', 'RandomWalk'): (dict(net=NET, checkpoint='x.pth'), dict(beta=WIDTH, steps=WHOLE)),
    ('MODELS', 'AffinityNet'): (
        {key: value for key, value in NET.items() if key != 'type'},
        dict(radius=[*WIDTH, 1]),
    ),
    ('MODELS', 'AReAMLoss'): (
        dict(layer_index=3),
        dict(
            layer_index=[value for value in WHOLE if value is not True],
            loss_weight=NUMBER,
            weights=['entropi', None, 1],
            propagate_layers=LAYERS,
            propagate_steps=WHOLE,
        ),
    ),
    ('HOOKS', 'WarmUpHook'): (dict(end=1), dict(end=WHOLE, by_epoch=SWITCH)),
    ('HOOKS', 'LayerEntropyHook'): (dict(dataloader=LOADER), dict(num_images=MAYBE_COUNT)),
    ('HOOKS', 'AffinityProfileHook'): (dict(dataloader=LOADER), dict(num_images=MAYBE_COUNT)),
    ('HOOKS', 'CAMPictureHook'): ({}, dict(num_images=WHOLE)),
    ('HOOKS', 'SafeCheckpointHook'): ({}, dict(interval=[0, 2.5, '3', [1]], max_keep_ckpts=[0, 2.5, '3'])),
    ('HOOKS', 'PseudoMaskHook'): (
        dict(dataloader=LOADER),
        dict(after_test=SWITCH, fp16=SWITCH, out_dir=[3, '', True, ['a']]),
    ),
    ('METRICS', 'CAMMetric'): ({}, dict(thresholds=COUNT)),
}
CASES = [
    (*where, required, key, value)
    for where, (required, settings) in SETTINGS.items()
    for key, values in settings.items()
    for value in values
]


@pytest.fixture(scope='module', autouse=True)
def registered():
    register_all_modules()


@pytest.mark.parametrize(('kind', 'name', 'required', 'key', 'value'), CASES)
def test_a_setting_out_of_range_or_of_another_type_is_refused_with_its_key(kind, name, required, key, value):
    if name == 'DenseCRF':
        pytest.importorskip('pydensecrf')
    with pytest.raises(ValueError, match=f'{name}.{key}: expected .*got '):
        getattr(registry, kind).build({**required, key: value, 'type': f'aream_mm.{name}'})


@pytest.mark.parametrize('key', ['epochs', 'warm_up', 'warm_up_lr', 'eta_min'])
def test_a_schedule_is_refused_with_its_key(key):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    settings = dict(type='aream_mm.TimmCosineLR', optimizer=optimizer, epochs=3, warm_up=1)
    registry.PARAM_SCHEDULERS.build(settings)
    for value in (-1, '3', math.nan):
        with pytest.raises(ValueError, match=f'TimmCosineLR.{key}: expected .*got '):
            registry.PARAM_SCHEDULERS.build({**settings, key: value})


def test_the_defaults_and_whole_numbers_of_numpy_pass():
    for (kind, name), (required, _) in SETTINGS.items():
        if name not in ('DenseCRF', 'RandomWalk', 'AffinityNet'):
            getattr(registry, kind).build({**required, 'type': f'aream_mm.{name}'})
    registry.MODELS.build(dict(type='aream_mm.PAR', dilations=(np.int64(1), 2), num_iters=np.int64(3)))
