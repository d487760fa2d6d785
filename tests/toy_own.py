"""A folder of somebody's photographs in miniature: endings of all sorts, a folder within, masks for some."""

from pathlib import Path

import numpy as np
from demo_scenes import draw_image
from PIL import Image
from tag_table import write_tag_table

CLASSES = ('background', 'cat', 'dog')
NAMES = ('sub/0.jpg', '1.PNG', 'sub/2.JPEG', '3.webp', 'sub/deep/4.tif', '5.Bmp')
IDS = ['1', '3', '5', 'sub/0', 'sub/2', 'sub/deep/4']  # as they are listed


def make_own(root: Path, num_masks: int = 2, size: tuple[int, int] = (96, 80)) -> Path:
    """Six drawn images of `size` (width, height), `num_masks` masks and a tags.csv below `root`."""
    tags = {}
    for i, name in enumerate(NAMES):
        image, mask = draw_image(np.random.default_rng(i), 96)
        path, sample_id = root / 'images' / name, name.rsplit('.', 1)[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).crop((0, 0, *size)).save(path)
        if i < num_masks:
            path = root / 'masks' / f'{sample_id}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((mask % 3).astype(np.uint8)[: size[1], : size[0]]).save(path)
        tags[name] = ['cat', 'dog'] if i % 2 else ['dog']
    write_tag_table(root / 'tags.csv', tags)
    return root


def own_config(root: Path, **arguments) -> dict:
    """Config of the data set over such a folder."""
    return dict(
        type='aream_mm.PhotographDataset',
        metainfo=dict(classes=CLASSES),
        data_root=str(root),
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        **arguments,
    )
