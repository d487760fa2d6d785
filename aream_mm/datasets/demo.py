"""A drawn multi-label data set for trying weakly supervised segmentation on a CPU within minutes."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
from mmengine.dist import barrier, master_only
from mmengine.utils import track_iter_progress
from mmseg.datasets import BaseSegDataset
from PIL import Image

from aream_mm.datasets.demo_scenes import CLASSES, PALETTE, draw_picture
from aream_mm.registry import DATASETS

GENERATOR_VERSION = 1


def generate_demo(root: str | Path, num_train: int = 320, num_val: int = 80, size: int = 160, seed: int = 0) -> None:
    """Draw the data set into ``root``, which appears only once complete; an equal one already there is kept.

    Picture ``i`` depends on ``size``, ``seed`` and ``i`` alone; the first ``num_train`` pictures are for training.
    """
    root = Path(root)
    settings = dict(num_train=num_train, num_val=num_val, size=size, seed=seed, generator_version=GENERATOR_VERSION)
    if root.exists():
        marker = root / 'settings.json'
        found = json.loads(marker.read_text()) if marker.is_file() else None
        if found != settings:
            raise ValueError(f'{root} exists with other content: expected settings {settings}, got {found}')
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{root.name}.', dir=root.parent) as scratch:
        folder = Path(scratch) / root.name  # a child, because the scratch folder itself is readable by its owner only
        (folder / 'images').mkdir(parents=True)
        (folder / 'masks').mkdir()
        ids = [f'{index:05d}' for index in range(num_train + num_val)]
        for index in track_iter_progress(range(len(ids))):
            picture, mask = draw_picture(np.random.default_rng((seed, index)), size)
            Image.fromarray(picture).save(folder / 'images' / f'{ids[index]}.jpg', quality=92)
            indexed = Image.fromarray(mask)
            indexed.putpalette(sum(PALETTE, []))
            indexed.save(folder / 'masks' / f'{ids[index]}.png')
        (folder / 'train.txt').write_text('\n'.join(ids[:num_train]))
        (folder / 'val.txt').write_text('\n'.join(ids[num_train:]))
        (folder / 'settings.json').write_text(json.dumps(settings, indent=2))
        os.replace(folder, root)


@DATASETS.register_module()
class DemoDataset(BaseSegDataset):
    """The drawn data set, generated with default settings when ``data_root`` does not exist.

    Use ``ann_file='train.txt'`` or ``'val.txt'`` with
    ``data_prefix=dict(img_path='images', seg_map_path='masks')``.
    """

    METAINFO = dict(classes=CLASSES, palette=PALETTE)

    def __init__(self, data_root: str, **kwargs) -> None:
        if not os.path.isdir(data_root):
            master_only(generate_demo)(data_root)
        barrier()  # outside the condition: another rank may look only after the folder has appeared
        super().__init__(
            data_root=data_root, img_suffix='.jpg', seg_map_suffix='.png', reduce_zero_label=False, **kwargs
        )
