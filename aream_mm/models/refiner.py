"""Refiner: planes in, planes out; the base class of whatever makes planes follow the image."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from aream_mm.models.attention import at_least_float32


class Refiner(nn.Module, ABC):
    """Planes of probabilities of an image → planes that follow it. A subclass has `refine`, and forward calls it.

    A config names a refiner wherever masks are made: `test_cfg=dict(refine=dict(type=…, …))` of a segmentor or of
    `PseudoMaskHook`. One of your own is a class in a file of yours:

        @aream_mm.registry.MODELS.register_module()
        class Blur(Refiner):
            def refine(self, images, planes):
                return torch.nn.functional.avg_pool2d(planes, 3, stride=1, padding=1)

    What `refine(images, planes)` may rely on, and has to keep:

    - images (B, 3, H, W) are RGB in 0..1, planes (B, K, H, W) probabilities, both float32 or wider, on one device.
      Autocast is off, because rounds of products add up their errors and thresholds come after them.
    - planes that are zero everywhere are classes the image does not have; they stay zero. So an image may have more
      planes than classes, and the images of a batch may have different ones.
    - the answer has the shape of the planes, and the planes given are left alone.
    - an image is refined as it would be without the others of its batch.

    Attributes:
        mixes_planes: whether a plane of the answer depends on other planes of the image, as where classes compete.
            If so, it gets the planes of one background score at a time, otherwise those of all scores along K.
        reads_samples: whether it reads which images they are. `refine(images, planes, samples)` then gets their data
            samples, or None, as in training, which cuts and turns images.

    Shapes: images (B, 3, H, W) RGB in 0..1, planes (B, K, H, W) → (B, K, H, W) float32 or wider.

    Raises:
        ValueError: images and planes of other shapes, or an answer of another shape than the planes.
    """

    mixes_planes = reads_samples = False

    def forward(self, images: Tensor, planes: Tensor, samples: Sequence[SegDataSample] | None = None) -> Tensor:
        name, shape = type(self).__name__, tuple(planes.shape)
        if len(shape) != 4 or images.shape != (shape[0], 3, *shape[2:]):
            raise ValueError(
                f'{name}: expected images (B, 3, H, W) and planes (B, K, H, W), got {tuple(images.shape)} and {shape}'
            )
        with torch.autocast(images.device.type, enabled=False):
            known = (samples,) if self.reads_samples else ()
            refined = self.refine(at_least_float32(images), at_least_float32(planes), *known)
        if refined.shape != shape:
            raise ValueError(f'{name}: expected refined planes {shape}, got {tuple(refined.shape)}')
        return refined

    @abstractmethod
    def refine(self, images: Tensor, planes: Tensor, *samples: Sequence[SegDataSample] | None) -> Tensor:
        """(B, 3, H, W), (B, K, H, W) → (B, K, H, W)."""
