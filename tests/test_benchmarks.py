"""The plain version of the equations, which the benchmarks time, gives what the models and the slow reference give."""

import json
import sys
from importlib import import_module

import par
import plain
import pytest
import reference
import timing
import torch
import zoo
from mmengine.registry import init_default_scope
from PIL import Image
from test_config import STAGE_1
from torch.testing import assert_close

from aream_mm.models import PAR, cam

close = dict(rtol=1e-4, atol=1e-4)


def test_plain_par_equals_the_slow_reference():
    image, planes = torch.rand(1, 3, 9, 11), torch.rand(1, 2, 9, 11)
    expected = reference.par(image[0].numpy(), planes[0].numpy(), (1, 2, 4), 3)
    assert_close(plain.par(image, planes, (1, 2, 4), 3)[0].double(), torch.from_numpy(expected), **close)


def test_plain_maps_equal_the_golden_vectors(toy_segmentor, golden):
    with torch.no_grad():
        class_logits, class_map, logits = plain.forward(toy_segmentor, golden['denormalized'])
    assert_close(class_logits, golden['class_logits'], **close)
    assert_close(class_map.relu(), golden['relu_cam'], **close)
    assert_close(logits, golden['attn_logits'], **close)


def test_plain_label_equals_the_golden_vectors(golden):
    arguments = golden['train_cam_uni'], golden['labels'], golden['denormalized']
    assert torch.equal(plain.reliable_masks(*arguments), golden['seg_uni'])


def test_the_loss_and_its_gradient_equal_those_of_the_plain_version(build_toy, golden, make_samples):
    images, tags = golden['denormalized'], golden['labels']
    models = [build_toy().train() for _ in range(2)]
    ours = sum(models[0].loss(images, make_samples(tags)).values())
    expected = plain.loss(models[1], images, tags)
    assert_close(ours, expected, rtol=1e-5, atol=0)
    ours.backward(), expected.backward()
    for (name, weight), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        if weight.numel():  # the toy has no extra tokens
            assert_close(weight.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_masks_equal_those_of_the_plain_version(toy_segmentor, make_samples):
    images, tags = torch.rand(2, 3, 60, 87), torch.tensor([[1, 0, 0, 1, 0], [0, 0, 1, 0, 0]])
    with torch.no_grad():
        predictions = toy_segmentor.predict(images, make_samples(tags, size=(60, 87)))
    for prediction, expected in zip(predictions, plain.predict(toy_segmentor, images, tags), strict=True):
        assert (prediction.pred_sem_seg.data[0] != expected).float().mean() < 0.001
        assert len(expected.unique()) > 1


def test_reliable_masks_equal_those_of_the_plain_version():
    torch.manual_seed(3)
    images = torch.nn.functional.interpolate(torch.rand(3, 3, 5, 6), (40, 48))
    scores = cam.normalize(cam.upsample(torch.rand(3, 20, 4, 5), (40, 48)))
    tags = torch.zeros(3, 20)
    tags[0, 3] = tags[1, :3] = tags[2, 5] = tags[2, 19] = 1
    expected = plain.reliable_masks(scores, tags, images)
    assert (cam.reliable_masks(scores, tags, images, PAR()) != expected).float().mean() < 0.001
    assert {0, 255} < set(expected.unique().tolist())


# The scripts


def run(benchmark, monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['benchmark', *arguments])
    timing.main(benchmark.__doc__, benchmark.variants, timing.Setting(32, 2, 3))


def test_a_benchmark_prints_a_table_and_writes_its_figures(tmp_path, monkeypatch, capsys):
    run(par, monkeypatch, '--runs', '2', '--out', str(tmp_path / 'figures/par.json'))
    rows = json.loads((tmp_path / 'figures/par.json').read_text())['rows']
    assert [row['variant'] for row in rows] == ['plain', 'reliable', 'every plane']
    for row in rows:
        assert (row['size'], row['batch'], row['num_classes']) == (32, 2, 3)
        assert row['seconds'] > 0
        assert row['peak MB'] is None or 0 < row['peak MB'] < 1000
    assert rows[0]['time / plain'] == 1
    assert 'time / plain' in capsys.readouterr().out


def test_growth_is_measured_along_each_axis(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, 'GROWTH', dict(size=(32, 48), batch=(1, 3), num_classes=(2, 5)))
    monkeypatch.setattr(timing, 'peak_memory', lambda variants, setting, names: dict.fromkeys(names))
    run(par, monkeypatch, '--runs', '1', '--growth', '--out', str(tmp_path / 'par.json'))
    grown = json.loads((tmp_path / 'par.json').read_text())['growth']
    settings = {
        axis: [(row['size'], row['batch'], row['num_classes']) for row in rows if row['variant'] == 'reliable']
        for axis, rows in grown.items()
    }
    assert settings == {
        'size': [(32, 1, 3), (48, 1, 3)],
        'batch': [(32, 1, 3), (32, 3, 3)],
        'num_classes': [(32, 2, 2), (32, 2, 5)],
    }
    assert {row['variant'] for rows in grown.values() for row in rows} == {'reliable', 'every plane'}
    assert Image.open(tmp_path / 'par.png').size[0] > 1000


def test_ratios_are_those_of_runs_side_by_side(monkeypatch):
    # The machine becomes ten times slower from run to run, and the variant takes twice the floor each time.
    clock = iter([9, 9, 1, 2, 10, 20, 100, 200])
    monkeypatch.setattr(timing, 'seconds', lambda work: next(clock))
    works = dict(floor=lambda: None, ours=lambda: None)
    variants = lambda setting: {name: lambda work=work: work for name, work in works.items()}  # noqa: E731
    floor, ours = timing.measure(variants, timing.Setting(1, 1, 1), 3, memory=False)
    assert (floor['seconds'], ours['seconds']) == (10, 20)
    assert ours['time / floor'] == 2


@pytest.mark.parametrize('benchmark', ['step', 'cam', 'decoder'])
def test_every_variant_works(benchmark):
    init_default_scope('mmseg')
    for build in import_module(benchmark).variants(timing.Setting(32, 2, 2)).values():
        build()()


def test_every_network_of_stage_1_on_voc_is_in_the_table_and_ready_to_train():
    init_default_scope('mmseg')
    assert zoo.network('aream_vit_entropy_voc.py').attention_loss.measured
    on_voc = {path.name for path in STAGE_1 if path.stem.endswith('_voc')}
    assert on_voc == set(zoo.PURPOSES) - {'aream_vit_animals.py'}


def test_the_table_of_networks_gives_sizes_and_what_they_cost_relative_to_mctformer(tmp_path, monkeypatch, capsys):
    chosen = ('aream_vit_animals.py', zoo.BASELINE)
    monkeypatch.setattr(zoo, 'PURPOSES', {config: zoo.PURPOSES[config] for config in chosen})
    monkeypatch.setattr(zoo, 'PHOTOGRAPH', (48, 64))
    peaks = dict(zip(chosen, (6e8, 2e8), strict=True))
    monkeypatch.setattr(zoo, 'peak_memory', lambda variants, setting, names: {name: peaks[name] for name in names})
    monkeypatch.setattr(sys, 'argv', ['zoo', '--batch', '1', '--runs', '1', '--out', str(tmp_path / 'zoo.json')])
    zoo.main()
    frozen, baseline = rows = json.loads((tmp_path / 'zoo.json').read_text())['rows']
    assert [row['memory'] for row in rows] == [3, 1]
    assert baseline['step'] == baseline['CAM'] == 1 and all(row['step'] > 0 and row['CAM'] > 0 for row in rows)
    assert baseline['trained, M'] == baseline['parameters, M']
    assert frozen['trained, M'] < frozen['parameters, M']
    # 12 layers of 20 + 14² tokens of 384 channels, the patch embedding, and a 3×3 class map.
    layer = 12 * 216 * 384**2 + 2 * 216**2 * 384
    assert baseline['GFLOPs'] == pytest.approx((12 * layer + 196 * 768 * 384 + 196 * 9 * 384 * 20) / 1e9, rel=0.01)
    assert f'| `{zoo.BASELINE}` ' in capsys.readouterr().out
