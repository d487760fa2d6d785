"""Transforms of our own: masks where there are some, what is image and what padding, and the last one of stage 1."""

import math
from collections.abc import Sequence

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.datasets.transforms import RandomResizedCrop
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs

from aream_mm.checks import numbers, require
from aream_mm.datasets.images import to_eight_bits
from aream_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ToEightBits(BaseTransform):
    """An image as `LoadImageFromFile(color_type=6)` reads it, of any depth and grey or BGR → BGR of 8 bits.

    Args:
        value_range: (low, high), the values of images of more than 8 bits that become 0 and 255; those of 8 bits stay
            as they are. It is the same for all images of a problem, in training and after it.
    """

    def __init__(self, value_range: Sequence[float] | None = None) -> None:
        ordered = numbers(value_range, -math.inf) and len(value_range) == 2 and value_range[0] < value_range[1]
        require('value_range', value_range, '(low, high) with low < high, or None', value_range is None or ordered)
        self.value_range = value_range

    def transform(self, results: dict) -> dict:
        results['img'] = to_eight_bits(results['img'], self.value_range, results.get('img_path', 'an array'))
        results['value_range'] = self.value_range
        return results


@TRANSFORMS.register_module()
class LoadAnnotationsIfAny(LoadAnnotations):
    """mmseg's `LoadAnnotations` for an image whose info names a mask, and nothing for one without."""

    def transform(self, results: dict) -> dict:
        return super().transform(results) if 'seg_map_path' in results else results


@TRANSFORMS.register_module()
class ResizedCrop(RandomResizedCrop):
    """mmpretrain's `RandomResizedCrop`, of the mask `gt_seg_map` too where there is one."""

    def rand_crop_params(self, img: np.ndarray) -> tuple[int, int, int, int]:
        self.place = super().rand_crop_params(img)
        return self.place

    def transform(self, results: dict) -> dict:
        results = super().transform(results)
        if 'gt_seg_map' in results:
            top, left, height, width = self.place
            crop = results['gt_seg_map'][top : top + height, left : left + width]
            results['gt_seg_map'] = mmcv.imresize(crop, tuple(self.scale[::-1]), interpolation='nearest')
        return results


@TRANSFORMS.register_module()
class LoadImageArea(BaseTransform):
    """A mask of zeros over the whole image, `gt_seg_map` (H, W), so that padding, which gets 255, is known from it.

    `CAMSegmentor` takes no pair of patches from what is 255.
    """

    def transform(self, results: dict) -> dict:
        if 'gt_seg_map' not in results:  # a true mask knows its padding too
            results['gt_seg_map'] = np.zeros(results['img_shape'], np.uint8)
            results['seg_fields'].append('gt_seg_map')
        return results


@TRANSFORMS.register_module()
class PackTagInputs(PackSegInputs):
    """mmseg's `PackSegInputs`, with the tags as `gt_score` (C,), `sample_id` and `value_range` where it has them."""

    def __init__(self) -> None:
        super().__init__()
        self.meta_keys = (*self.meta_keys, 'sample_id', 'value_range')

    def transform(self, results: dict) -> dict:
        packed = super().transform(results)
        if 'gt_score' in results:
            packed['data_samples'].set_field(torch.from_numpy(results['gt_score']), 'gt_score')
        return packed
