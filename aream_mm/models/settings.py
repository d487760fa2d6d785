"""The settings of a segmentor: how the label of the attention loss is made, and how an image becomes a mask."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from aream_mm.models.refiner import Refiner
from aream_mm.registry import MODELS


@dataclass(frozen=True)
class TrainSettings:
    """How the CAM of a training image becomes the label of the attention loss.

    low, high: background scores of the reliable mask, in 0..1; both None where every pixel belongs to a class.
    mirror: add the CAM of the mirrored image.
    scales: sizes, relative to the image, whose CAMs are summed; 1 is among them, for it is the pass that is trained.
    """

    low: float | None = 0.35
    high: float | None = 0.55
    mirror: bool = True
    scales: Sequence[float] = (1.0,)

    def __post_init__(self) -> None:
        scores = (self.low, self.high)
        if scores != (None, None) and (None in scores or not 0 <= self.low <= self.high <= 1):
            raise ValueError(
                f'train_cfg: expected 0 <= low <= high <= 1, or None for both, got {self.low}, {self.high}'
            )
        if 1 not in self.scales or min(self.scales) <= 0:
            raise ValueError(f'train_cfg: expected positive scales with 1 among them, got {self.scales}')


@dataclass(frozen=True)
class RefineSettings:
    """How predictions are refined.

    refine: config of the `Refiner` of the planes, such as dict(type='aream_mm.PAR') or dict(type='aream_mm.DenseCRF');
        None for none.
    refine_scale: resolution at which it works, in 0..1 relative to the image; its settings in pixels mean these pixels.
    """

    refine: dict | None = None
    refine_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.refine_scale <= 1:
            raise ValueError(f'test_cfg: expected 0 < refine_scale <= 1, got {self.refine_scale}')

    @cached_property
    def refiner(self) -> Refiner | None:
        """Built once for all batches, and no part of the segmentor: its weights belong in no checkpoint."""
        if self.refine is None:
            return None
        refiner = MODELS.build(self.refine)
        if not isinstance(refiner, Refiner):
            raise TypeError(f'refine: expected an aream_mm.models.Refiner, got {type(refiner).__name__}')
        return refiner.eval()


@dataclass(frozen=True)
class TestSettings(RefineSettings):
    """How an image becomes a CAM and the CAM a mask.

    background: background score in 0..1; a pixel is foreground where its best class scores above it. None where every
        pixel belongs to a class: the data set's classes then have no 'background', and ids start at 0.
    band: two more background scores, (low, high); the mask is then 255 where it is doubtful. A pixel is its class where
        the mask at the high score is foreground, and background where the one at the low score is background too.
        mmseg's IoUMetric counts a doubtful pixel as missed; `PseudoMaskHook` leaves it out and says how many there are.
    propagate_layers: layers whose mean affinity propagates the CAM; None for all, () for no propagation.
    propagate_steps: how often it does.
    scales: image sizes, relative to the input, whose CAMs are summed.
    mirror: add the CAM of the mirrored image.
    fit: how an image of any size comes to whole patches: 'resize' brings it to the nearest size, so that all is image;
        'pad', as the authors' program does, leaves it as it is and adds zeros, after normalisation, at right and
        bottom, for a mirrored image at its own right; the CAM is cut to the image.
    class_threshold: probability in 0..1 above which a class counts as present in an image without tags.
    refine, refine_scale: see `RefineSettings`.
    """

    refine_scale: float = 0.5
    background: float | None = 0.4
    band: Sequence[float] | None = None
    propagate_layers: Sequence[int] | None = None
    propagate_steps: int = 1
    scales: Sequence[float] = (1.0,)
    mirror: bool = True
    fit: Literal['resize', 'pad'] = 'resize'
    class_threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scales:
            raise ValueError('test_cfg: expected at least one of scales, got none')
        if self.fit not in ('resize', 'pad'):
            raise ValueError(f"test_cfg: expected fit 'resize' or 'pad', got {self.fit!r}")
        if self.band is not None and (
            self.background is None or len(self.band) != 2 or not 0 <= self.band[0] <= self.band[1] <= 1
        ):
            raise ValueError(
                'test_cfg: expected band=(low, high) with 0 <= low <= high <= 1 and a background score, or no band, '
                f'got band={self.band}, background={self.background}'
            )
