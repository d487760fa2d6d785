"""Settings of a segmentor: of the label of the attention loss, and of predictions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Literal

from aream_mm.checks import numbers, require
from aream_mm.models.refiner import Refiner
from aream_mm.registry import MODELS


@dataclass(frozen=True)
class TrainSettings:
    """How the CAM of a training image becomes the label of the attention loss.

    low, high: background scores of the reliable mask, in 0..1. Both None: every pixel belongs to a class.
    mirror: add the CAM of the mirrored image.
    scales: sizes relative to the image; their CAMs are summed. 1 is the pass that is trained, and has to be there.
    """

    low: float | None = 0.35
    high: float | None = 0.55
    mirror: bool = True
    scales: Sequence[float] = (1.0,)

    def __post_init__(self) -> None:
        scores = (self.low, self.high)
        good = scores == (None, None) or numbers(scores, high=1) and self.low <= self.high
        require('train_cfg.low, train_cfg.high', scores, '0 <= low <= high <= 1, or None for both', good)
        require('train_cfg.mirror', self.mirror, 'True or False', isinstance(self.mirror, bool))
        good = numbers(self.scales) and 1 in self.scales and 0 not in self.scales
        require('train_cfg.scales', self.scales, 'a sequence of positive numbers with 1 among them', good)


@dataclass(frozen=True)
class RefineSettings:
    """How predictions are refined.

    refine: config of the `Refiner` of the planes, such as dict(type='aream_mm.PAR'), or None.
    refine_scale: its resolution relative to the image, above 0 and up to 1. Its pixels are of this resolution.
    """

    refine: dict | None = None
    refine_scale: float = 1.0

    def __post_init__(self) -> None:
        scale, refine = self.refine_scale, self.refine
        require('test_cfg.refine_scale', scale, 'a number above 0 and up to 1', numbers([scale], high=1) and scale > 0)
        good = refine is None or isinstance(refine, Mapping) and 'type' in refine
        require('test_cfg.refine', refine, "None or a dict with a type, such as dict(type='aream_mm.PAR')", good)

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
    """How an image becomes a CAM and the CAM a mask; further settings: `RefineSettings`.

    background: score in 0..1. A pixel is foreground where its best class scores above it. None: every pixel belongs to
        a class, the data set's classes have no 'background', and ids start at 0.
    band: two more background scores, (low, high). The high one decides where foreground is, the low one where
        background is; other pixels are 255. mmseg's IoUMetric counts those as missed, `PseudoMaskHook` counts and
        leaves them out.
    propagate_layers: layers whose mean affinity propagates the CAM. None: all. (): no propagation.
    propagate_steps: how often it propagates.
    scales: image sizes relative to the input; their CAMs are summed.
    mirror: add the CAM of the mirrored image.
    fit: how an image comes to whole patches. 'resize' takes the nearest size. 'pad', as in the authors' program, adds
        zeros at right and bottom after normalisation and mirroring, and cuts the CAM to the image.
    class_threshold: probability in 0..1. A class with a higher one is present in an image without tags.
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
        score, band, layers, steps = self.background, self.band, self.propagate_layers, self.propagate_steps
        good = score is None or numbers([score], high=1)
        require('test_cfg.background', score, 'a number in 0..1 or None', good)
        good = band is None or score is not None and numbers(band, high=1) and len(band) == 2 and band[0] <= band[1]
        expected = f'(low, high) with 0 <= low <= high <= 1 and a background score (which is {score}), or None'
        require('test_cfg.band', band, expected, good)
        good = layers is None or numbers(layers, -math.inf, kind=Integral)
        require('test_cfg.propagate_layers', layers, 'a sequence of the numbers of layers, or None', good)
        require('test_cfg.propagate_steps', steps, 'a whole number', numbers([steps], kind=Integral))
        good = numbers(self.scales) and self.scales and 0 not in self.scales
        require('test_cfg.scales', self.scales, 'a sequence of positive numbers', good)
        require('test_cfg.mirror', self.mirror, 'True or False', isinstance(self.mirror, bool))
        require('test_cfg.fit', self.fit, "'resize' or 'pad'", self.fit in ('resize', 'pad'))
        threshold = self.class_threshold
        require('test_cfg.class_threshold', threshold, 'a number in 0..1', numbers([threshold], high=1))
