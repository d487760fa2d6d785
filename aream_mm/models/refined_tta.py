"""Refinement at test time: what mmseg's networks predict, refined with the photograph."""

import mmcv
import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import SegTTAModel
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from aream_mm.models import cam as cams
from aream_mm.registry import MODELS


class Refinement(nn.Module):
    """A refiner of the probabilities that mmseg's networks predict.

    Args:
        refine: config of the refiner, such as dict(type='aream_mm.DenseCRF') or dict(type='aream_mm.PAR').
        refine_scale: resolution at which it works, in 0..1 relative to the pictures; its settings in pixels mean these
            pixels.

    Raises:
        ValueError: a resolution outside 0..1.

    Shapes: images (B, 3, H, W) RGB in 0..1, planes (B, K, H, W) of probabilities → (B, K, H, W).
    """

    def __init__(self, refine: dict, refine_scale: float = 1.0) -> None:
        super().__init__()
        if not 0 < refine_scale <= 1:
            raise ValueError(f'refine_scale: expected 0 < refine_scale <= 1, got {refine_scale}')
        self.refiner = MODELS.build(refine)
        self.scale = refine_scale

    def forward(self, images: Tensor, planes: Tensor) -> Tensor:
        size = planes.shape[-2:]
        low = cams.scaled(size, self.scale)
        return cams.upsample(self.refiner(cams.upsample(images, low), cams.upsample(planes, low)), size)


def refinement_of(test_cfg: dict) -> Refinement | None:
    """What `refine` and `refine_scale` in the test settings of one of mmseg's networks ask for."""
    if test_cfg.get('refine') is None:
        return None
    return Refinement(**{key: test_cfg[key] for key in ('refine', 'refine_scale') if key in test_cfg}).eval()


@MODELS.register_module()
class RefinedTTAModel(SegTTAModel):
    """mmseg's `SegTTAModel`, whose mean probabilities over the views of a picture are refined at its original size.

    A prediction carries what the refiner makes of the probabilities as `seg_logits` (K, H, W) and its argmax as
    `pred_sem_seg` (1, H, W). `tools/test.py` wraps an mmseg segmentor whose test_cfg has a `refine`; there is one view
    or, with --tta, several.

    Args:
        module: config of the segmentor.
        refine, refine_scale: as for `Refinement`.
        data_preprocessor: as for `SegTTAModel`.

    Raises:
        ValueError: a segmentor of a single plane; a resolution outside 0..1; a picture of another size than its
            predictions.
    """

    def __init__(
        self, module: dict, refine: dict, refine_scale: float = 1.0, data_preprocessor: dict | None = None
    ) -> None:
        super().__init__(module, data_preprocessor)
        if self.module.out_channels < 2:
            raise ValueError(f'RefinedTTAModel: expected planes of 2 classes or more, got {self.module.out_channels}')
        self.refinement = Refinement(refine, refine_scale)

    def merge_preds(self, data_samples_list: list[tuple[SegDataSample, ...]]) -> list[SegDataSample]:
        """The views of each picture, of one size, to its refined prediction."""
        samples = []
        for views in data_samples_list:
            sample = views[0]
            planes = sum(view.seg_logits.data.softmax(dim=0) for view in views) / len(views)
            planes = self.refinement(photograph(sample.img_path, planes)[None], planes[None])[0]
            sample.seg_logits = PixelData(data=planes)
            sample.pred_sem_seg = PixelData(data=planes.argmax(dim=0, keepdim=True))
            samples.append(sample)
        return samples


def photograph(path: str, planes: Tensor) -> Tensor:
    """The picture of the planes (K, H, W) as RGB in 0..1, (3, H, W), on their device."""
    image = mmcv.imread(path, channel_order='rgb')
    if image.shape[:2] != planes.shape[-2:]:
        raise ValueError(
            f'{path}: expected predictions of the size of the picture {image.shape[:2]}, got {tuple(planes.shape[-2:])}'
        )
    return torch.from_numpy(image).to(planes.device).permute(2, 0, 1) / 255
