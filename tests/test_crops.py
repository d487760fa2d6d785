"""What a random crop loses of the objects that tags name."""

import sys

import crops
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image
from toy_voc import make_voc, voc_config


def test_crops_say_how_often_a_tag_is_lost(tmp_path, monkeypatch, capsys):
    root = make_voc(tmp_path / 'voc', size=(90, 90))
    tagged = dict(type='aream_mm.ImageTagDataset', dataset=voc_config(root), tag_file=f'{root}/cls_labels.npy')
    crop = dict(type='mmpretrain.RandomResizedCrop', scale=90, crop_ratio_range=(0.05, 0.1))
    train, val = dict(tagged, pipeline=[crop]), dict(tagged, test_mode=True)
    Config(dict(train_dataloader=dict(dataset=train), val_dataloader=dict(dataset=val))).dump(tmp_path / 'config.py')
    monkeypatch.setattr(sys, 'argv', ['crops.py', str(tmp_path / 'config.py'), '--least', '1'])
    crops.main()
    rows = [line.split('|')[2:4] for line in capsys.readouterr().out.splitlines() if ' to ' in line]
    (lost, scraps), (lost_of_whole, _) = [[float(value) for value in row] for row in rows]
    assert 100 > scraps >= lost > 0 == lost_of_whole


@pytest.mark.parametrize('masks', [3, 0])
def test_images_without_a_mask_are_left_out(tmp_path, monkeypatch, capsys, masks):
    root = make_voc(tmp_path / 'voc', size=(90, 90))
    for file in sorted((root / 'SegmentationClass').iterdir())[masks:]:
        file.unlink()
    tagged = dict(type='aream_mm.ImageTagDataset', dataset=voc_config(root), tag_file=f'{root}/cls_labels.npy')
    train = dict(tagged, pipeline=[dict(type='mmpretrain.RandomResizedCrop', scale=90)])
    val = dict(tagged, test_mode=True)
    Config(dict(train_dataloader=dict(dataset=train), val_dataloader=dict(dataset=val))).dump(tmp_path / 'config.py')
    monkeypatch.setattr(sys, 'argv', ['crops.py', str(tmp_path / 'config.py')])
    if masks:
        crops.main()
        assert '3 images' in capsys.readouterr().out
    else:
        with pytest.raises(ValueError, match='expected true masks of some of 4 images to measure on, got none'):
            crops.main()


def test_what_a_crop_shows_of_an_object_is_counted_in_pixels(tmp_path):
    root = make_voc(tmp_path / 'voc', size=(90, 90))
    tagged = dict(type='aream_mm.ImageTagDataset', dataset=voc_config(root), tag_file=f'{root}/cls_labels.npy')
    dataset = DATASETS.build(dict(tagged, test_mode=True))
    corner = lambda results: dict(img=results['img'][:30, :45])  # noqa: E731
    masks = [np.array(Image.open(root / f'SegmentationClass/2007_{i:06d}.png')) for i in range(4)]
    expected = [(mask[:30, :45] == tag).mean() for mask in masks for tag in np.unique(mask) if 0 < tag < 255]
    np.testing.assert_allclose(crops.shares(dataset, corner, 1), expected)
