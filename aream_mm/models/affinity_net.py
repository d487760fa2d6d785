"""Learned affinity (PSA): AffinityNet, trained on confident masks, and the random walk that it guides.

Ahn and Kwak, Learning Pixel-level Semantic Affinity with Image-level Supervision, CVPR 2018, arXiv 1803.10464.

B images, D channels, h×w = P cells of 8×8 pixels, K planes. A pair is two different cells closer than a radius.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import BaseModel
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as computed_again

from aream_mm.checkpoint import load_fitting_checkpoint
from aream_mm.checks import numbers, require, require_whole
from aream_mm.masks import IGNORE_INDEX
from aream_mm.models.cam import upsample
from aream_mm.models.refiner import Refiner
from aream_mm.models.timm_networks import levels_on_grid
from aream_mm.registry import MODELS

STRIDE = 8
EPS = 1e-5


def disc(radius: float) -> list[tuple[int, int]]:
    """Offsets (dy, dx) closer than `radius` in reading order; the n-th and the n-th last are opposite, (0, 0) between.

    Those behind (0, 0) reach every pair once.
    """
    reach = range(-math.floor(radius), math.floor(radius) + 1)
    return [(dy, dx) for dy in reach for dx in reach if math.hypot(dy, dx) < radius]


def ends(x: Tensor, dy: int, dx: int) -> tuple[Tensor, Tensor]:
    """Views of the first and the second ends of the pairs at an offset with dy >= 0: (…, h, w) → (…, h − dy, w − |dx|).

    Empty where the offset leads out of the grid from everywhere.
    """
    height, width = x.shape[-2:]
    left, right = max(-dx, 0), max(dx, 0)
    first = x[..., : max(height - dy, 0), left : max(width - right, left)]
    second = x[..., dy:, right : max(width - left, right)]
    return first, second


def distances(features: Tensor, dy: int, dx: int) -> Tensor:
    """‖f_i − f_j‖₁ of the pairs at an offset: (B, D, h, w) → (B, h − dy, w − |dx|)."""
    first, second = ends(features, dy, dx)
    return (first - second).abs().sum(dim=1)


def pair_sums(features: Tensor, labels: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """What the loss averages over the pairs: sums (3,) and numbers of pairs (3,) int64.

    The three kinds are pairs of background, pairs of one other class, and pairs of two classes; with W = exp(−‖f_i −
    f_j‖₁), the first two sum −log W, the third −log(1 − W / (1 + 1e-5)). Pairs with an ignored end are in none.

    Args:
        features: (B, D, h, w).
        labels: (B, h, w) int64, 0 background, 255 ignored.
        radius: in cells.
    """
    offsets = disc(radius)
    sums, counts = features.new_zeros(3), torch.zeros(3, dtype=torch.int64, device=features.device)
    for offset in offsets[len(offsets) // 2 + 1 :]:
        first, second = ends(labels, *offset)
        known, same = (first != IGNORE_INDEX) & (second != IGNORE_INDEX), first == second
        kinds = torch.stack([known & same & (first == 0), known & same & (first > 0), known & ~same])
        # Autograd would keep the differences of all offsets, dozens of times the memory of the features.
        distance = computed_again(distances, features, *offset, use_reentrant=False)
        apart = -torch.log1p(-torch.exp(-distance) / (1 + EPS))
        sums = sums + (torch.stack([distance, distance, apart]) * kinds).sum(dim=(1, 2, 3))
        counts += kinds.sum(dim=(1, 2, 3))
    return sums, counts


def transition(features: Tensor, radius: float, beta: float) -> list[Tensor]:
    """T = D⁻¹ W^β of each image: features (B, D, h, w) → B sparse CSR matrices (P, P).

    W_ij = exp(−‖f_i − f_j‖₁) for pairs closer than `radius` and for i = j, otherwise 0; the power is that of each
    entry, D the sum of each row. A row belongs to the cell that receives.
    """
    batch, _, height, width = features.shape
    offsets = disc(radius)
    middle = len(offsets) // 2
    weights = features.new_zeros(batch, len(offsets), height, width)  # to the neighbour of each cell at each offset
    weights[:, middle] = 1
    for n, offset in enumerate(offsets[middle + 1 :], start=1):
        weight = torch.exp(-beta * distances(features, *offset))
        ends(weights[:, middle + n], *offset)[0].copy_(weight)
        ends(weights[:, middle - n], *offset)[1].copy_(weight)
    weights = weights / weights.sum(dim=1, keepdim=True)

    dy, dx = torch.tensor(offsets, device=features.device).T
    y = torch.arange(height, device=features.device)[:, None, None] + dy  # (h, 1, N)
    x = torch.arange(width, device=features.device)[:, None] + dx  # (w, N)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)  # (h, w, N): in reading order within each row of T
    columns = (y * width + x)[inside]
    ends_of_rows = F.pad(inside.sum(dim=-1).flatten().cumsum(0), (1, 0))
    size = (height * width, height * width)
    return [
        torch.sparse_csr_tensor(ends_of_rows, columns, values, size, check_invariants=False)
        for values in weights.permute(0, 2, 3, 1)[:, inside]
    ]


def walk(planes: Tensor, transitions: Sequence[Tensor], steps: int) -> Tensor:
    """T^steps · planes: (B, K, h, w), B matrices (P, P) → (B, K, h, w). Every cell keeps its sum over planes of 1."""
    sources = planes.flatten(2).transpose(1, 2)  # (B, P, K)
    walked = []
    for source, matrix in zip(sources, transitions, strict=True):
        for _ in range(steps):
            source = matrix @ source
        walked.append(source)
    return torch.stack(walked).transpose(1, 2).unflatten(2, planes.shape[-2:])


@MODELS.register_module()
class AffinityNet(BaseModel):
    """Features whose distance tells whether two near places belong to one class, learned from masks.

    A 1×1 convolution with ReLU reads each level of the backbone. At ⌈H / 8⌉ × ⌈W / 8⌉ cells another one makes the
    features f of all levels. The loss, over the pairs of the batch, is

        −mean_{background} log W − mean_{one other class} log W − 2 · mean_{two classes} log(1 − W),   see `pair_sums`.

    A kind that has no pair counts 0. Labels are read at the centre of each cell. Several processes divide by the pairs
    of all. It trains on a `PseudoMaskDataset` of masks with a band, and serves `RandomWalk`; alone it predicts nothing.

    Args:
        backbone: config of a network of mmseg or timm that returns feature levels, such as `TimmCNN`.
        in_channels: of each level.
        channels: of each level's 1×1 convolution; the features have as many as these add up to.
        data_preprocessor: mmseg's.
        radius: distance in cells below which two are a pair.

    Shapes: images (B, 3, H, W) as `data_preprocessor` makes them → features (B, D, ⌈H / 8⌉, ⌈W / 8⌉).
    """

    def __init__(
        self,
        backbone: dict,
        in_channels: Sequence[int],
        channels: Sequence[int],
        data_preprocessor: dict,
        radius: float = 5,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        # Of 1 and less a cell has no neighbour, so that there is nothing to learn.
        require('AffinityNet.radius', radius, 'a number above 1', numbers([radius]) and radius > 1)
        self.backbone = MODELS.build(backbone)
        self.levels = nn.ModuleList(nn.Conv2d(*sizes, 1) for sizes in zip(in_channels, channels, strict=True))
        self.projection = nn.Conv2d(sum(channels), sum(channels), 1)
        nn.init.normal_(self.projection.weight, std=1 / sum(channels))  # or W would be 0 everywhere at the start
        self.radius = radius

    def features(self, images: Tensor) -> Tensor:
        levels = self.backbone(images)
        if len(levels) != len(self.levels):
            raise ValueError(
                f'AffinityNet: expected a backbone of {len(self.levels)} levels, as in_channels has them, got '
                f'{len(levels)}'
            )
        grid = [math.ceil(side / STRIDE) for side in images.shape[-2:]]
        reduced = [reduce(level).relu() for reduce, level in zip(self.levels, levels, strict=True)]
        return self.projection(levels_on_grid(reduced, grid))

    def forward(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor]:
        """mmengine's: `mode='loss'` gives the three terms of the loss, 'tensor' the features."""
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'tensor':
            return self.features(inputs)
        raise ValueError(f"AffinityNet: expected mode 'loss' or 'tensor', got {mode!r}; it makes masks in a RandomWalk")

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """`loss_background`, `loss_foreground` and `loss_negative`; every process of a group has to call it."""
        features = self.features(inputs).float()
        masks = torch.stack([sample.gt_sem_seg.data for sample in data_samples])  # (B, 1, H, W)
        labels = F.interpolate(masks.float(), features.shape[-2:], mode='nearest-exact')[:, 0].long()
        sums, counts = pair_sums(features, labels, self.radius)
        all_reduce(counts)
        background, foreground, negative = get_world_size() * sums / counts.clamp(min=1)
        return dict(loss_background=background, loss_foreground=foreground, loss_negative=2 * negative)


class RandomWalk(Refiner):
    """Planes walk over the cells of the image, T^steps · planes with T = D⁻¹ W^β of an `AffinityNet`.

    A cell has the mean of its plane; bilinear interpolation brings the result back to pixels. T is sparse. A cell is 8
    pixels of what the refiner gets, so it needs refine_scale=1 beside `refine` in the test settings.

    Args:
        net: config of an `AffinityNet`, as in configs/_base_/models/affinity_net_resnet50.py.
        checkpoint: its weights, as its training wrote them.
        beta: β, 8 in the paper; the higher, the more does a small distance hold up the walk.
        steps: how many, 256 in the paper. Fewer steps or a higher β suit a network of short training.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: the net is another model, the checkpoint of another net, or a number is out of range.

    Shapes: images (B, 3, H, W) RGB in 0..1, planes (B, K, H, W) of any scale → (B, K, H, W) float32.
    Constant planes and sums over planes stay.
    """

    def __init__(self, net: dict, checkpoint: str, beta: float = 8, steps: int = 256) -> None:
        super().__init__()
        require('RandomWalk.beta', beta, 'a number above 0', numbers([beta]) and beta > 0)
        require_whole('RandomWalk', steps=steps)
        self.net = MODELS.build(net)
        if not isinstance(self.net, AffinityNet):
            raise ValueError(f'RandomWalk: expected an AffinityNet as net, got {type(self.net).__name__}')
        load_fitting_checkpoint(self.net, checkpoint)
        self.beta = beta
        self.steps = steps

    @torch.no_grad()
    def refine(self, images: Tensor, planes: Tensor) -> Tensor:
        images, planes = images.float(), planes.float()
        self.net.to(images.device)  # tells the preprocessor too, which moving this module does not
        # As the images of a data set are before the preprocessor: BGR in 0..255.
        inputs = self.net.data_preprocessor(dict(inputs=list(images.flip(1) * 255)))['inputs']
        features = self.net(inputs)
        cells = F.interpolate(planes, features.shape[-2:], mode='area')
        walked = walk(cells, transition(features, self.net.radius, self.beta), self.steps)
        return upsample(walked, planes.shape[-2:])
