"""The drawn demo set: the same images each time, complete or not there, in the form of one's own photographs."""

from pathlib import Path

import numpy as np
import pytest
from demo_scenes import CLASSES
from draw_demo import draw_demo
from options import load_config

from aream_mm.datasets import ImageTagDataset

CONFIGS = Path(__file__).parents[1] / 'configs/demo'


def test_a_demo_image_depends_on_its_index_and_seed_alone(tmp_path):
    draw_demo(tmp_path / 'few', num_train=2, num_val=1, size=48)
    draw_demo(tmp_path / 'more', num_train=3, num_val=1, size=48)
    draw_demo(tmp_path / 'other', num_train=2, num_val=1, size=48, seed=1)
    read = lambda name: (tmp_path / name).read_bytes()  # noqa: E731
    assert read('few/images/00002.jpg') == read('more/images/00002.jpg')
    assert read('few/masks/00002.png') == read('more/masks/00002.png')
    assert read('few/images/00002.jpg') != read('other/images/00002.jpg')


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    calls = iter(range(100))
    draw = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt) if next(calls) == 2 else (IMAGE, IMAGE[..., 0])  # noqa: E731
    monkeypatch.setattr('draw_demo.draw_image', draw)
    with pytest.raises(KeyboardInterrupt):
        draw_demo(tmp_path / 'demo', num_train=4, num_val=0, size=48)
    assert list(tmp_path.iterdir()) == []


IMAGE = np.zeros((48, 48, 3), np.uint8)


def test_another_demo_set_at_the_same_place_is_refused(tmp_path):
    draw_demo(tmp_path / 'demo', num_train=2, num_val=1, size=48)
    with pytest.raises(ValueError, match="expected settings .*'size': 64.*got .*'size': 48"):
        draw_demo(tmp_path / 'demo', num_train=2, num_val=1, size=64)


def test_an_equal_demo_set_is_kept(tmp_path):
    draw_demo(tmp_path / 'demo', num_train=1, num_val=1, size=48)
    (tmp_path / 'demo/images/00000.jpg').write_bytes(b'as it was')
    draw_demo(tmp_path / 'demo', num_train=1, num_val=1, size=48)
    assert (tmp_path / 'demo/images/00000.jpg').read_bytes() == b'as it was'


def test_the_demo_set_is_read_as_own_photographs_with_a_tag_each_and_all_classes(tmp_path):
    draw_demo(tmp_path / 'demo', num_train=24, num_val=1, size=64)
    inner = dict(
        type='aream_mm.PhotographDataset',
        metainfo=dict(classes=CLASSES),
        data_root=str(tmp_path / 'demo'),
        ann_file='train.txt',
        data_prefix=dict(img_path='images', seg_map_path='masks'),
    )
    datasets = ImageTagDataset(inner, str(tmp_path / 'demo/tags.csv')), ImageTagDataset(inner)
    from_table, from_masks = (np.stack([dataset[i]['gt_score'] for i in range(24)]) for dataset in datasets)
    np.testing.assert_array_equal(from_table, from_masks)
    assert from_table.shape == (24, len(CLASSES) - 1)
    assert from_table.any(axis=0).all() and from_table.any(axis=1).all()


def test_the_configs_of_the_demo_name_the_classes_as_they_are_drawn():
    for name in ('aream_demo', 'deeplabv3plus_demo'):
        assert load_config(CONFIGS / f'{name}.py').classes == CLASSES
