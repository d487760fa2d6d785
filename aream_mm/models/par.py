"""Pixel-adaptive refinement: planes follow the colours of the image (Ru et al., CVPR 2022; arXiv 2305.03112)."""

from collections.abc import Iterator, Sequence
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor

from aream_mm.checks import numbers, require, require_whole
from aream_mm.models.refiner import Refiner

DIRECTIONS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
COLOUR_SCALE, POSITION_SCALE, POSITION_WEIGHT, EPS = 0.3, 0.3, 0.01, 1e-8


class PAR(Refiner):
    """Ten rounds of masks ← Σ_n affinity[n] · neighbour[n](masks) over 8 directions × dilations, replicate padding.

        affinity = softmax_n(−mean_rgb((|I_n − I| / (std_n(I) + 1e-8) / 0.3)²))
                   + 0.01 · softmax_n(−(distance_n / (std(distance) + 1e-8) / 0.3)²)

    with the unbiased standard deviation over the neighbours. The affinity of an image is computed once and serves all
    planes and all rounds; neighbours are views, so memory grows with the planes and not with planes × neighbours.

    Args:
        dilations: distances in pixels at which the 8 neighbours are read.
        num_iters: rounds.

    Shapes: images (B, 3, H, W) RGB in 0..1, planes (B, K, H, W) of any scale → (B, K, H, W) float32.

    >>> images = torch.zeros(1, 3, 16, 16)
    >>> images[..., 8:] = 1  # black | white
    >>> planes = torch.zeros(1, 1, 16, 16)
    >>> planes[..., 6:] = 1  # two columns too many
    >>> PAR()(images, planes)[0, 0, 8, 5:10] > 0.5
    tensor([False, False, False,  True,  True])
    """

    def __init__(self, dilations: Sequence[int] = (1, 2, 4, 8, 12, 24), num_iters: int = 10) -> None:
        super().__init__()
        good = numbers(dilations, low=1, kind=Integral) and len(dilations) > 0
        require('PAR.dilations', dilations, 'a sequence of whole numbers from 1 on', good)
        require_whole('PAR', num_iters=num_iters)
        self.num_iters = num_iters
        self.margin = max(dilations)
        self.offsets = [(dilation * dy, dilation * dx) for dilation in dilations for dy, dx in DIRECTIONS]
        distance = torch.tensor(self.offsets, dtype=torch.float32).norm(dim=1)  # (N,)
        closeness = -((distance / (distance.std() + EPS) / POSITION_SCALE) ** 2)
        self.register_buffer('position_affinity', POSITION_WEIGHT * closeness.softmax(dim=0), persistent=False)

    def neighbours(self, x: Tensor) -> Iterator[Tensor]:
        """Views of x (B, K, H, W), shifted to each neighbour in turn."""
        height, width = x.shape[-2:]
        padded = F.pad(x, (self.margin,) * 4, mode='replicate')
        for dy, dx in self.offsets:
            top, left = self.margin + dy, self.margin + dx
            yield padded[..., top : top + height, left : left + width]

    def affinity(self, images: Tensor) -> Tensor:
        """(B, N, H, W): the weight of each neighbour of each pixel."""
        count = len(self.offsets)
        # Two passes: the one-pass variance loses all digits in flat regions, where it divides by almost nothing.
        mean = sum(self.neighbours(images)) / count
        variance = sum((neighbour - mean) ** 2 for neighbour in self.neighbours(images)) / (count - 1)
        scale = (variance.sqrt() + EPS) * COLOUR_SCALE
        likeness = [-(((neighbour - images) / scale) ** 2).mean(dim=1) for neighbour in self.neighbours(images)]
        return torch.stack(likeness, dim=1).softmax(dim=1) + self.position_affinity.view(1, -1, 1, 1)

    def refine(self, images: Tensor, planes: Tensor) -> Tensor:
        weights = self.affinity(images).unsqueeze(2).unbind(dim=1)  # N × (B, 1, H, W)
        for _ in range(self.num_iters):
            refined = torch.zeros_like(planes)
            for weight, neighbour in zip(weights, self.neighbours(planes), strict=True):
                refined = refined.addcmul_(weight, neighbour)
            planes = refined
        return planes
