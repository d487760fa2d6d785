"""COCO 2014 as a segmentation data set: 80 classes and background, in one numbering.

Three numberings of COCO's classes are in use. The official category ids of the annotation files run from 1 to 90 and
leave ten out. Masks here hold 0 for background and 1..80 for the official categories in their order. Tags, like the
scores of a classifier, are the same 80 in the same order without background.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmseg.datasets import BaseSegDataset, COCOStuffDataset

from aream_mm.datasets.pictures import damage, open_picture
from aream_mm.masks import IGNORE_INDEX, VOC_COLOURS
from aream_mm.registry import DATASETS

CLASSES = COCOStuffDataset.METAINFO['classes'][:80]  # its things, in official order
SAMPLED_MASKS = 50  # read at construction; ids 81..90 are in about every sixth picture of COCO: hardly missed


@DATASETS.register_module()
class COCO2014Dataset(BaseSegDataset):
    """COCO 2014, with masks and lists as `tools/converters/coco.py` writes them.

    Use ``ann_file='train2014.txt'`` with ``data_prefix=dict(img_path='train2014', seg_map_path='masks/train2014')``,
    or ``val2014`` likewise. Where masks exist, a few of them, evenly spread, are read at construction.

    Raises:
        FileNotFoundError: the list does not exist.
        ValueError: a mask holds an id other than 0..80 and 255, or the masks look as if classes were counted from 0.
    """

    METAINFO = dict(classes=('background', *CLASSES), palette=VOC_COLOURS[: 1 + len(CLASSES)])

    def __init__(self, img_suffix: str = '.jpg', seg_map_suffix: str = '.png', **kwargs) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, reduce_zero_label=False, **kwargs)

    def load_data_list(self) -> list[dict]:
        self.converter = f'`python tools/converters/coco.py {self.data_root or "ROOT"}`'
        if self.ann_file and not Path(self.ann_file).exists():
            raise FileNotFoundError(f'expected the image list {self.ann_file}, which {self.converter} writes')
        infos = super().load_data_list()
        sample = infos[:: max(1, math.ceil(len(infos) / SAMPLED_MASKS))]
        self._check_masks([path for info in sample if Path(path := info.get('seg_map_path', '')).is_file()])
        return infos

    def _check_masks(self, paths: Sequence[str]) -> None:
        expected = f'expected ids 0..{len(CLASSES)} (0 = background, 1..80 = the classes) or {IGNORE_INDEX}'
        remedy = f'{self.converter} writes masks of these ids into masks/, once other masks are out of its way'
        without_background = []
        for path in paths:
            if problem := damage(path):
                raise ValueError(f'{path}: {expected}, got a file that cannot be read ({problem}); {remedy}')
            with open_picture(path) as mask:
                if len(mask.getbands()) != 1:
                    raise ValueError(f'{path}: {expected}, got a picture of mode {mask.mode}; {remedy}')
                ids = np.unique(mask)
            if unknown := [int(i) for i in ids if not 0 <= i <= len(CLASSES) and i != IGNORE_INDEX]:
                origin = 'the official category ids' if max(unknown) <= 90 else 'the ids of COCO-Stuff'
                raise ValueError(f'{path}: {expected}, got {unknown}, which look like {origin}; {remedy}')
            if IGNORE_INDEX in ids and 0 not in ids:
                without_background.append(path)
        # An id too low by one cannot be told from a right one. But masks that count the classes from 0 have 255 where
        # there is no object, and 0 only where there are persons: in about half of COCO's pictures.
        if len(without_background) > max(1, len(paths) / 5):
            raise ValueError(
                f'{without_background[0]}: {expected}, got {IGNORE_INDEX} and no 0, as in {len(without_background)} of '
                f'the {len(paths)} masks looked at, as if the classes were 0..79 without background; {remedy}'
            )
