"""TensorBoard and Weights & Biases get the curves, the affinity figures and the pictures of a run."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.runner import Runner
from test_measuring_hooks import EPOCHS, measured_config
from toy_voc import make_voc

PICTURES = {'cam_2007_000000', 'cam_2007_000003'}


def runner_with(backend, folder):
    """A run whose visualiser has `backend` beside the local one, which the tools read."""
    cfg = measured_config(make_voc(folder / 'voc'), folder / 'work')
    cfg.visualizer.vis_backends.append(backend)
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    return Runner.from_cfg(cfg)


def local_scalars(runner):
    """The values of each scalar that the local backend has, in order."""
    values = {}
    for line in (Path(runner.log_dir) / 'vis_data/scalars.json').read_text().splitlines():
        for key, value in json.loads(line).items():
            values.setdefault(key, []).append(value)
    del values['step']
    assert {'loss', 'loss_aream', 'lr', 'cam/mIoU_best', 'affinity/effective_tokens/layer_0'} <= set(values)
    return values


def test_tensorboard_reads_back_every_curve_of_the_local_backend_and_the_pictures(tmp_path):
    reading = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    runner = runner_with(dict(type='TensorboardVisBackend'), tmp_path)
    runner.train()
    everything = {reading.IMAGES: 0, reading.SCALARS: 0}
    events = reading.EventAccumulator(f'{runner.log_dir}/vis_data', size_guidance=everything).Reload()
    expected = local_scalars(runner)
    assert set(events.Tags()['scalars']) == set(expected)
    for key, values in expected.items():
        np.testing.assert_allclose([event.value for event in events.Scalars(key)], values, rtol=1e-6, err_msg=key)
    assert set(events.Tags()['images']) == PICTURES
    for name in PICTURES:
        assert [event.height for event in events.Images(name)] == [240] * EPOCHS


def test_weights_and_biases_gets_every_curve_and_the_pictures_offline(tmp_path, monkeypatch):
    pytest.importorskip('wandb', reason='pip install wandb')
    runner = runner_with(dict(type='WandbVisBackend', init_kwargs=dict(mode='offline', project='toy')), tmp_path)
    run = runner.visualizer.get_backend('WandbVisBackend').experiment.run
    monkeypatch.setattr(runner.visualizer, 'close', lambda: None)  # after which there is no summary to ask
    runner.train()
    assert {key for key in run.summary.keys() if not key.startswith('_')} == {*local_scalars(runner), *PICTURES}
    assert len(list(Path(run.dir, 'media/images').glob('cam_*.png'))) == len(PICTURES) * EPOCHS
    run.finish()
