"""Refinement at test time: what mmseg's networks predict, refined with the photograph."""

import mmcv
import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import SegTTAModel
from mmseg.structures import SegDataSample
from torch import Tensor

from aream_mm.models import cam as cams
from aream_mm.registry import MODELS


@MODELS.register_module()
class RefinedTTAModel(SegTTAModel):
    """mmseg's `SegTTAModel`, whose mean probabilities over the views of a picture are refined at the original size.

    Both the mask and `seg_logits` of a prediction are the refined ones. `tools/test.py` makes it where the test_cfg of
    an mmseg segmentor has a `refine`, with one view or, with --tta, several.

    Args:
        module: config of the segmentor.
        refine: config of the refiner.
        refine_scale: resolution at which it works, in 0..1 relative to the original picture.
        data_preprocessor: as for `SegTTAModel`.

    Raises:
        ValueError: a segmentor of a single plane; a picture of another size than its predictions.
    """

    def __init__(
        self, module: dict, refine: dict, refine_scale: float = 1.0, data_preprocessor: dict | None = None
    ) -> None:
        super().__init__(module, data_preprocessor)
        if self.module.out_channels < 2:
            raise ValueError(f'RefinedTTAModel: expected planes of 2 classes or more, got {self.module.out_channels}')
        if not 0 < refine_scale <= 1:
            raise ValueError(f'RefinedTTAModel: expected 0 < refine_scale <= 1, got {refine_scale}')
        self.refiner = MODELS.build(refine)
        self.refine_scale = refine_scale

    def merge_preds(self, data_samples_list: list[tuple[SegDataSample, ...]]) -> list[SegDataSample]:
        """The views of each picture → its refined prediction."""
        samples = super().merge_preds(data_samples_list)
        planes = [
            sum(view.seg_logits.data.softmax(dim=0) for view in views) / len(views) for views in data_samples_list
        ]
        for sample, refined in zip(samples, self.refined(samples, planes), strict=True):
            sample.set_data(
                dict(
                    seg_logits=PixelData(data=refined),
                    pred_sem_seg=PixelData(data=refined.argmax(dim=0, keepdim=True)),
                )
            )
        return samples

    def refined(self, samples: list[SegDataSample], planes: list[Tensor]) -> list[Tensor]:
        """Each (K, H, W) → (K, H, W); pictures of one size go together."""
        images = [photograph(sample, plane) for sample, plane in zip(samples, planes, strict=True)]
        if len({image.shape for image in images}) > 1:
            pairs = zip(samples, planes, strict=True)
            return [self.refined([sample], [plane])[0] for sample, plane in pairs]
        images, planes = torch.stack(images), torch.stack(planes)
        low = cams.scaled(images.shape[-2:], self.refine_scale)
        refined = self.refiner(cams.upsample(images, low), cams.upsample(planes, low))
        return list(cams.upsample(refined, images.shape[-2:]))


def photograph(sample: SegDataSample, planes: Tensor) -> Tensor:
    """The original picture of a sample as RGB in 0..1, (3, H, W), on the device of its planes."""
    image = mmcv.imread(sample.img_path, channel_order='rgb')
    if image.shape[:2] != planes.shape[-2:]:
        raise ValueError(
            f'{sample.img_path}: expected predictions of the size of the picture {image.shape[:2]}, got '
            f'{tuple(planes.shape[-2:])}'
        )
    return torch.from_numpy(image).to(planes.device).permute(2, 0, 1) / 255
