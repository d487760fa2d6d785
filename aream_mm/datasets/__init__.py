"""Data sets of the two stages: images with tags, images with pseudo masks, and the drawn demo set."""

from aream_mm.datasets.demo import DemoDataset
from aream_mm.datasets.formatting import PackTagInputs
from aream_mm.datasets.image_tags import ImageTagDataset
from aream_mm.datasets.pseudo_masks import PseudoMaskDataset

__all__ = ['DemoDataset', 'ImageTagDataset', 'PackTagInputs', 'PseudoMaskDataset']
