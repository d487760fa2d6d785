"""Data sets of the two stages: images with tags, images with pseudo masks; COCO 2014 and the drawn demo set."""

from aream_mm.datasets.coco import COCO2014Dataset
from aream_mm.datasets.demo import DemoDataset
from aream_mm.datasets.formatting import PackTagInputs
from aream_mm.datasets.image_tags import ImageTagDataset
from aream_mm.datasets.pseudo_masks import PseudoMaskDataset

__all__ = ['COCO2014Dataset', 'DemoDataset', 'ImageTagDataset', 'PackTagInputs', 'PseudoMaskDataset']
