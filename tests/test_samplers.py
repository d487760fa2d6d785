"""SizeBatchSampler: every image once, in batches of one size that do not depend on the number of processes."""

from collections import Counter

import pytest
from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner
from PIL import Image
from toy_voc import make_voc, voc_config

from aream_mm.datasets import SizeBatchSampler

SIZES = [(50, 40), (40, 50), (50, 40), (50, 40), (60, 40), (50, 40), (40, 50), (50, 40)]


class Images:
    def __len__(self):
        return len(SIZES)

    def get_data_info(self, index):
        return dict(zip(('width', 'height'), SIZES[index], strict=True))


def batches(batch_size, **arguments):
    return list(SizeBatchSampler(DefaultSampler(Images(), shuffle=False), batch_size, **arguments))


@pytest.mark.parametrize('batch_size', [1, 2, 3, 16])
def test_every_image_once_in_batches_of_one_size(batch_size):
    found = batches(batch_size)
    assert sorted(index for batch in found for index in batch) == list(range(len(SIZES)))
    assert all(len({SIZES[index] for index in batch}) == 1 for batch in found)
    assert all(1 <= len(batch) <= batch_size for batch in found)


def test_batches_are_as_full_as_they_can_be():
    assert sorted(map(len, batches(2))) == [1, 1, 2, 2, 2]
    assert len(SizeBatchSampler(DefaultSampler(Images(), shuffle=False), 2)) == 5


@pytest.mark.parametrize('processes', [2, 3, 7])
def test_processes_share_the_batches_of_one(processes, monkeypatch):
    alone, shares = batches(2), []
    for rank in range(processes):
        monkeypatch.setattr('aream_mm.datasets.samplers.get_dist_info', lambda rank=rank: (rank, processes))
        shares.extend(batches(2))
    assert Counter(map(tuple, shares)) == Counter(map(tuple, alone))


def test_only_whole_batches_of_the_wanted_images_are_kept():
    assert batches(3, indices=[7, 4]) == [batch for batch in batches(3) if {4, 7} & set(batch)]
    assert batches(3, indices=[7, 4]) != batches(3)
    assert batches(3, indices=[]) == []


def test_a_data_set_that_does_not_tell_sizes_is_refused(monkeypatch):
    monkeypatch.setattr(Images, 'get_data_info', lambda self, index: dict(img_path='a.jpg'))
    with pytest.raises(TypeError, match='expected a data set whose infos have width and height.*got Images'):
        batches(2)


def test_a_loader_gives_images_that_can_be_stacked(tmp_path):
    make_voc(tmp_path)
    names = sorted((tmp_path / 'JPEGImages').iterdir())
    Image.open(names[1]).resize((80, 96)).save(names[1])
    # Shown as 80 × 96 too, but for its EXIF orientation it would be 96 × 80.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(names[2]).save(names[2], exif=exif)
    for name in names[1:3]:
        mask = tmp_path / 'SegmentationClass' / f'{name.stem}.png'
        Image.open(mask).transpose(Image.Transpose.ROTATE_270).save(mask)
    loader = Runner.build_dataloader(
        dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_sampler=dict(type='aream_mm.SizeBatchSampler'),
            dataset=dict(
                type='aream_mm.ImageTagDataset',
                dataset=voc_config(tmp_path),
                tag_file=f'{tmp_path}/cls_labels.npy',
                pipeline=[dict(type='LoadImageFromFile'), dict(type='aream_mm.PackTagInputs')],
                test_mode=True,
            ),
        )
    )
    found = [([tuple(p.shape) for p in b['inputs']], [s.sample_id for s in b['data_samples']]) for b in loader]
    assert found == [
        ([(3, 80, 96)] * 2, [names[0].stem, names[3].stem]),
        ([(3, 96, 80)] * 2, [names[1].stem, names[2].stem]),
    ]
