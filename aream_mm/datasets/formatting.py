"""Transforms of our own: masks where there are some, what is image and what padding, and the last one of stage 1."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs

from aream_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadAnnotationsIfAny(LoadAnnotations):
    """mmseg's `LoadAnnotations` for a picture whose info names a mask, and nothing for one without."""

    def transform(self, results: dict) -> dict:
        return super().transform(results) if 'seg_map_path' in results else results


@TRANSFORMS.register_module()
class LoadImageArea(BaseTransform):
    """A mask of zeros over the whole image, `gt_seg_map` (H, W), so that padding, which gets 255, is known from it.

    `CAMSegmentor` takes no pair of patches from what is 255.
    """

    def transform(self, results: dict) -> dict:
        results['gt_seg_map'] = np.zeros(results['img_shape'], np.uint8)
        results['seg_fields'].append('gt_seg_map')
        return results


@TRANSFORMS.register_module()
class PackTagInputs(PackSegInputs):
    """mmseg's `PackSegInputs`, with the tags as `gt_score` (C,) and the `sample_id` where the image has them."""

    def __init__(self) -> None:
        super().__init__()
        self.meta_keys = (*self.meta_keys, 'sample_id')

    def transform(self, results: dict) -> dict:
        packed = super().transform(results)
        if 'gt_score' in results:
            packed['data_samples'].set_field(torch.from_numpy(results['gt_score']), 'gt_score')
        return packed
