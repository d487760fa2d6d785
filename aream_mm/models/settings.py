"""The settings of `CAMSegmentor`: how the label of the AReAM loss is made, and how a picture becomes a mask."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import nn

from aream_mm.registry import MODELS


@dataclass(frozen=True)
class TrainSettings:
    """How the label of the AReAM loss is made.

    low, high: background scores of the reliable mask, in 0..1; both None where every pixel belongs to a class.
    propagate_layers: layers whose mean affinity propagates the label CAM; None for the shallow ones, weighed as
        `AReAMLoss` says; () for no propagation, so that the class map alone makes the label, for a transformer that has
        not been pretrained and whose shallow affinity knows nothing yet.
    propagate_steps: how often it does.
    mirror: add the CAM of the mirrored picture.
    label_cam_mode: 'eval' makes the label CAM without dropout and with fixed batch statistics; 'train', as the authors'
        program does, in training mode. The forward pass that is trained serves for it in 'train', and in 'eval' too
        where the network has no dropout, drop path or batch statistics; otherwise the label takes one of its own.
    """

    name = 'train_cfg'

    low: float | None = 0.35
    high: float | None = 0.55
    propagate_layers: Sequence[int] | None = None
    propagate_steps: int = 1
    mirror: bool = True
    label_cam_mode: Literal['eval', 'train'] = 'eval'

    def __post_init__(self) -> None:
        scores = (self.low, self.high)
        if scores != (None, None) and (None in scores or not 0 <= self.low <= self.high <= 1):
            raise ValueError(
                f'train_cfg: expected 0 <= low <= high <= 1, or None for both, got {self.low}, {self.high}'
            )
        if self.label_cam_mode not in ('eval', 'train'):
            raise ValueError(f"train_cfg: expected label_cam_mode 'eval' or 'train', got {self.label_cam_mode!r}")


@dataclass(frozen=True)
class TestSettings:
    """How a picture becomes a CAM and the CAM a mask.

    background: background score in 0..1; a pixel is foreground where its best class scores above it. None where every
        pixel belongs to a class: the data set's classes then have no 'background', and ids start at 0.
    band: two more background scores, (low, high); the mask is then 255 where it is doubtful. A pixel is its class where
        the mask at the high score is foreground, and background where the one at the low score is background too.
        mmseg's IoUMetric counts a doubtful pixel as missed; `PseudoMaskHook` leaves it out and says how many there are.
    propagate_layers: layers whose mean affinity propagates the CAM; None for all, () for no propagation.
    propagate_steps: how often it does.
    scales: image sizes, relative to the input, whose CAMs are summed.
    mirror: add the CAM of the mirrored picture.
    refine: config of the refiner of the planes, such as dict(type='aream_mm.PAR') or dict(type='aream_mm.DenseCRF');
        None for none.
    refine_scale: resolution at which it works, in 0..1 relative to the input; its settings in pixels mean these pixels.
    class_threshold: probability in 0..1 above which a class counts as present in a picture without tags.
    """

    name = 'test_cfg'

    background: float | None = 0.4
    band: Sequence[float] | None = None
    propagate_layers: Sequence[int] | None = None
    propagate_steps: int = 1
    scales: Sequence[float] = (1.0,)
    mirror: bool = True
    refine: dict | None = None
    refine_scale: float = 0.5
    class_threshold: float = 0.5

    def __post_init__(self) -> None:
        if not self.scales:
            raise ValueError('test_cfg: expected at least one of scales, got none')
        if self.band is not None and (
            self.background is None or len(self.band) != 2 or not 0 <= self.band[0] <= self.band[1] <= 1
        ):
            raise ValueError(
                'test_cfg: expected band=(low, high) with 0 <= low <= high <= 1 and a background score, or no band, '
                f'got band={self.band}, background={self.background}'
            )
        if not 0 < self.refine_scale <= 1:
            raise ValueError(f'test_cfg: expected 0 < refine_scale <= 1, got {self.refine_scale}')

    @cached_property
    def refiner(self) -> nn.Module | None:
        """Built once for all batches, and no part of the segmentor: its weights belong in no checkpoint."""
        return self.refine and MODELS.build(self.refine).eval()
