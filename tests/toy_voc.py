"""A VOC 2012 folder in miniature: drawn images, whose objects pass for cats, dogs, persons and so on."""

import json
from pathlib import Path

import numpy as np
from demo_scenes import draw_image
from PIL import Image

VOC_IDS = np.array([0, 8, 10, 12, 13, 15])  # background, cat, cow, dog, horse, person: what the drawn classes stand for
ANIMALS = ('background', 'cat', 'cow', 'dog', 'horse', 'person', 'sheep')


def make_voc(root: Path, train: int = 4, val: int = 2, size: tuple[int, int] = (96, 80)) -> Path:
    """Draw `train` + `val` images of `size` (width, height) with masks, lists and a cls_labels.npy below `root`."""
    names = [f'2007_{i:06d}' for i in range(train + val)]
    for folder in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
        (root / folder).mkdir(parents=True)
    tags = {}
    for i, name in enumerate(names):
        image, mask = draw_image(np.random.default_rng(i), 96)
        mask = VOC_IDS[mask].astype(np.uint8)
        mask[:2] = 255
        Image.fromarray(image).crop((0, 0, *size)).save(root / 'JPEGImages' / f'{name}.jpg')
        mask = mask[: size[1], : size[0]]
        indexed = Image.fromarray(mask)
        indexed.putpalette([255 - value // 3 for value in range(768)])
        indexed.save(root / 'SegmentationClass' / f'{name}.png')
        tags[name] = np.isin(np.arange(1, 21), mask).astype(np.float32)
    lists = root / 'ImageSets' / 'Segmentation'
    for file, ids in (('train', names[:train]), ('trainaug', names[:train]), ('val', names[train:])):
        (lists / f'{file}.txt').write_text('\n'.join(ids) + '\n')
    np.save(root / 'cls_labels.npy', tags)
    return root


def voc_config(root: Path, split: str = 'train', **arguments) -> dict:
    """Config of mmseg's data set over such a folder."""
    return dict(
        type='mmseg.PascalVOCDataset',
        data_root=str(root),
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file=f'ImageSets/Segmentation/{split}.txt',
        **arguments,
    )


def write_masks(folder: Path, names: list[str], classes: list[str], size: tuple[int, int] = (96, 80)) -> str:
    """Pseudo masks of the named images, (width, height), filled with the ids of the classes in turn, and a manifest."""
    folder.mkdir()
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', size, i % len(classes)).save(folder / f'{name}.png')
    (folder / 'manifest.json').write_text(json.dumps(dict(classes=list(classes))))
    return str(folder)
