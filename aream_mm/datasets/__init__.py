"""Data sets of both stages: images with tags or pseudo masks; COCO 2014 and own photographs."""

from aream_mm.datasets.coco import COCO2014Dataset
from aream_mm.datasets.formatting import LoadAnnotationsIfAny, LoadImageArea, PackTagInputs, ResizedCrop, ToEightBits
from aream_mm.datasets.image_tags import ImageTagDataset
from aream_mm.datasets.masks import MaskDataset
from aream_mm.datasets.photographs import PhotographDataset
from aream_mm.datasets.pseudo_masks import PseudoMaskDataset
from aream_mm.datasets.samplers import SizeBatchSampler
