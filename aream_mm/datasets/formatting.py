"""Transforms of our own: masks where there are some, and the last one of a stage 1 pipeline."""

import torch
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs

from aream_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadAnnotationsIfAny(LoadAnnotations):
    """mmseg's `LoadAnnotations` for a picture whose info names a mask, and nothing for one without."""

    def transform(self, results: dict) -> dict:
        return super().transform(results) if 'seg_map_path' in results else results


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
