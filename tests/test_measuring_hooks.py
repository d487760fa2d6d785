"""A small run that is measured while it trains: layer weights, curves, pictures, and the best checkpoint."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner, load_checkpoint
from PIL import Image
from test_engine import LOAD, PACK, run_config
from toy_voc import make_voc

from aream_mm.engine import AffinityProfileHook, LayerEntropyHook
from aream_mm.engine.measuring import entropy_of_layers
from aream_mm.evaluation import AffinityProfile, threshold_sweep
from aream_mm.registry import MODELS

EPOCHS = 4


def measured_config(root, work_dir, masks=True, **changes):
    """`run_config` with entropy weights, all measuring hooks and a validation after each epoch."""
    cfg = run_config(root, work_dir, **{'train_cfg.max_epochs': EPOCHS, 'train_cfg.val_interval': 1})
    loader = cfg.custom_hooks[1].dataloader.copy()
    test_pipeline = [LOAD, dict(type='Resize', scale=(64, 64)), dict(type='LoadAnnotations'), PACK]
    loader.dataset = dict(loader.dataset, pipeline=test_pipeline if masks else [*test_pipeline[:2], PACK])
    cfg.model.attention_loss.weights = 'entropy'
    cfg.custom_hooks = [
        cfg.custom_hooks[0],
        dict(type='aream_mm.LayerEntropyHook', dataloader=dict(loader, batch_size=3)),
        dict(type='aream_mm.AffinityProfileHook', dataloader=loader, num_images=2),
        dict(type='aream_mm.ThresholdCurveHook'),
        dict(type='aream_mm.CAMPictureHook', num_images=2),
    ]
    cfg.val_dataloader = loader
    cfg.val_cfg = dict()
    cfg.val_evaluator = [
        dict(type='aream_mm.CAMMetric'),
        dict(type='mmpretrain.AveragePrecision'),
        dict(type='mmpretrain.AveragePrecision', average=None),
        dict(type='mmpretrain.MultiLabelMetric', thr=0.5),
    ]
    cfg.default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='auto'))
    cfg.visualizer = dict(
        type='mmseg.SegLocalVisualizer', name=str(work_dir), vis_backends=[dict(type='LocalVisBackend')]
    )
    cfg.merge_from_dict(changes)
    return cfg


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """A finished run and its data root."""
    folder = tmp_path_factory.mktemp('measured')
    root = make_voc(folder / 'voc')
    runner = Runner.from_cfg(measured_config(root, folder / 'work'))
    runner.train()
    return root, runner


def scalars(runner):
    """The values of each scalar that the local visualisation backend has recorded, in order."""
    result = {}
    for line in (Path(runner.log_dir) / 'vis_data/scalars.json').read_text().splitlines():
        for key, value in json.loads(line).items():
            result.setdefault(key, []).append(value)
    return result


def model_at(runner, checkpoint):
    model = MODELS.build(runner.cfg.model)
    load_checkpoint(model, str(checkpoint), map_location='cpu', strict=True)
    return model.eval()


def test_layer_weights_are_the_min_max_of_the_entropies_at_the_end_of_the_warm_up(measured):
    _, runner = measured
    model = MODELS.build(runner.cfg.model)
    load_checkpoint(model, f'{runner.work_dir}/epoch_1.pth', map_location='cpu')
    assert not model.attention_loss.measured
    entropies = []
    for batch in runner.val_dataloader:  # one image at a time; the hook measured three and one
        batch = model.data_preprocessor(batch)
        entropies.append(entropy_of_layers(model.eval(), batch['inputs'], model.tags(batch['data_samples'])))
    entropy = torch.stack(entropies).mean(dim=0)
    expected = (entropy - entropy.min()) / (entropy.max() - entropy.min())
    later = model_at(runner, f'{runner.work_dir}/epoch_2.pth').attention_loss.layer_weights
    torch.testing.assert_close(later, expected.float(), rtol=1e-4, atol=1e-4)
    assert sorted(later.tolist())[0] == 0 and sorted(later.tolist())[-1] == 1
    assert scalars(runner)['layer_weight/layer_01'] == [pytest.approx(later[1].item())]


def test_layer_weights_stay_as_they_were_measured(measured):
    _, runner = measured
    models = [model_at(runner, f'{runner.work_dir}/epoch_{epoch}.pth') for epoch in (2, EPOCHS)]
    assert torch.equal(*(model.attention_loss.layer_weights for model in models))


def test_a_resumed_run_measures_no_entropies(measured, tmp_path, monkeypatch):
    root, runner = measured
    cfg = measured_config(root, tmp_path, **{'load_from': f'{runner.work_dir}/epoch_2.pth', 'resume': True})
    monkeypatch.setattr(LayerEntropyHook, 'measure', lambda *_: pytest.fail('measured again'))
    resumed = Runner.from_cfg(cfg)
    resumed.train()
    assert torch.equal(resumed.model.attention_loss.layer_weights, runner.model.attention_loss.layer_weights)


def test_entropies_are_measured_on_so_many_images(measured, tmp_path):
    root, _ = measured
    hook = LayerEntropyHook(measured_config(root, tmp_path).custom_hooks[1].dataloader, num_images=2)
    runner = Runner.from_cfg(measured_config(root, tmp_path))
    hook.before_train(runner)
    dataset = hook.loader.dataset
    assert [dataset.get_data_info(i)['sample_id'] for i in range(len(dataset))] == [
        '2007_000000',
        '2007_000003',
    ]


def test_a_loss_with_uniform_weights_needs_no_entropies(measured, tmp_path):
    cfg = measured_config(measured[0], tmp_path, **{'model.attention_loss.weights': 'uniform'})
    with pytest.raises(ValueError, match="expected an AReAMLoss with weights='entropy', got weights='uniform'"):
        Runner.from_cfg(cfg).train()


def test_the_best_checkpoint_is_the_one_that_a_sweep_finds_best(measured):
    _, runner = measured
    best = []
    for epoch in range(1, EPOCHS + 1):
        model, cams, masks = model_at(runner, f'{runner.work_dir}/epoch_{epoch}.pth'), [], []
        for batch in runner.val_dataloader:
            for prediction in model.test_step(batch):
                cams.append((prediction.cam_classes, prediction.cam.data))
                masks.append(prediction.gt_sem_seg.data[0])
        best.append(threshold_sweep(cams, masks, np.arange(1, 100) / 100, 7).max())
    assert len(set(best)) == EPOCHS
    expected = f'best_cam_mIoU_best_epoch_{1 + int(np.argmax(best))}.pth'
    assert [path.name for path in Path(runner.work_dir).glob('best_*')] == [expected]


def test_without_masks_the_best_checkpoint_goes_by_mean_average_precision(measured, tmp_path):
    runner = Runner.from_cfg(measured_config(measured[0], tmp_path, masks=False))
    runner.train()
    precisions = scalars(runner)['multi-label/mAP']
    assert len(precisions) == EPOCHS
    expected = f'best_multi-label_mAP_epoch_{1 + int(np.argmax(precisions))}.pth'
    assert [path.name for path in tmp_path.glob('best_*')] == [expected]
    assert not list(tmp_path.rglob('threshold_curve*'))


def test_classification_is_measured_beside_the_cams(measured):
    recorded = scalars(measured[1])
    keys = ('cam/mIoU_best', 'cam/mIoU_fixed', 'cam/mIoU_mask_free', 'multi-label/mAP', 'multi-label/f1-score')
    for key in keys:
        assert len(recorded[key]) == EPOCHS and all(0 <= value <= 100 for value in recorded[key])


def test_the_threshold_curve_is_drawn_and_tabled_after_each_validation(measured):
    _, runner = measured
    folder = Path(runner.log_dir)
    names = [f'threshold_curve_iter_{2 * epoch}' for epoch in range(1, EPOCHS + 1)]
    for name in names:
        assert np.array(Image.open(folder / f'{name}.png')).std() > 10
    rows = list(csv.DictReader((folder / f'{names[-1]}.csv').open()))
    assert len(rows) == 99 and list(rows[0])[:4] == ['threshold', 'mIoU', 'background', 'cat']
    best = max(float(row['mIoU']) for row in rows)
    assert best == pytest.approx(scalars(runner)['cam/mIoU_best'][-1], abs=0.01)
    classes = [float(value) for key, value in rows[50].items() if key not in ('threshold', 'mIoU') and value]
    assert np.mean(classes) == pytest.approx(float(rows[50]['mIoU']), abs=1e-3)


def test_the_same_pictures_are_drawn_after_each_validation(measured):
    folder = Path(measured[1].log_dir) / 'vis_data/vis_image'
    expected = [f'cam_2007_{i:06}_{2 * epoch}.png' for i in (0, 3) for epoch in range(1, EPOCHS + 1)]
    assert sorted(path.name for path in folder.iterdir()) == expected
    picture = np.array(Image.open(folder / expected[0]))
    assert picture.shape[1] > 3.5 * picture.shape[0]  # four panels of 96×80


def test_the_affinity_profile_is_recorded_after_each_validation(measured):
    _, runner = measured
    recorded = scalars(runner)
    hook = next(hook for hook in runner.hooks if isinstance(hook, AffinityProfileHook))
    profile = AffinityProfile(model_at(runner, f'{runner.work_dir}/epoch_{EPOCHS}.pth'))
    for batch in hook.loader:
        batch = runner.model.data_preprocessor(batch)
        profile.update(batch['inputs'], batch['data_samples'])
    for row, figures in profile.compute().items():
        for figure, value in figures.items():
            series = recorded[f'affinity/{figure}/{row.replace(" ", "_")}']
            assert len(series) == EPOCHS and series[-1] == pytest.approx(value, abs=1e-4)
