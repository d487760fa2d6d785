"""COCO 2014 as a segmentation data set: 80 classes and background, in one numbering.

Three numberings of COCO's classes are in use. The official category ids of the annotation files run from 1 to 90 and
leave ten out. Masks here hold 0 for background and 1..80 for the official categories in their order. Tags, like the
scores of a classifier, are the same 80 in the same order without background.
"""

from pathlib import Path

from mmseg.datasets import BaseSegDataset, COCOStuffDataset

from aream_mm.masks import VOC_COLOURS
from aream_mm.registry import DATASETS

CLASSES = COCOStuffDataset.METAINFO['classes'][:80]  # its things, in official order


@DATASETS.register_module()
class COCO2014Dataset(BaseSegDataset):
    """COCO 2014, with masks and lists as `tools/converters/coco.py` writes them.

    Use ``ann_file='train2014.txt'`` with ``data_prefix=dict(img_path='train2014', seg_map_path='masks/train2014')``,
    or ``val2014`` likewise.

    Raises:
        FileNotFoundError: the list does not exist.
    """

    METAINFO = dict(classes=('background', *CLASSES), palette=VOC_COLOURS[: 1 + len(CLASSES)])

    def load_data_list(self) -> list[dict]:
        converter = f'`python tools/converters/coco.py {self.data_root or "ROOT"}`'
        self.origin_of_masks = f', as {converter} writes them once other masks are out of its way'
        if self.ann_file and not Path(self.ann_file).exists():
            raise FileNotFoundError(f'expected the image list {self.ann_file}, which {converter} writes')
        return super().load_data_list()
