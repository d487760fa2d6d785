"""Class activation maps as pure tensor functions, in the order of the paper: activate, propagate, normalise, mask.

B images, C classes without background, K planes, h×w = P patches, H×W pixels. Images are RGB in 0..1.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from aream_mm.models.par import PAR

IGNORE_INDEX = 255


def activate(class_map: Tensor, class_affinity: Tensor | None = None) -> Tensor:
    """ReLU(class map) ⊙ mean_l A[l][class → patch]: (B, C, h, w), (B, C, P) → (B, C, h, w)."""
    cam = class_map.relu()
    return cam if class_affinity is None else cam * class_affinity.unflatten(2, cam.shape[-2:])


def propagate(cam: Tensor, affinity: Tensor, steps: int = 1) -> Tensor:
    """cam[p] ← Σ_q affinity[p, q] · cam[q], `steps` times: (B, C, h, w), (B, P, P) → (B, C, h, w).

    A row of the affinity belongs to the patch that receives and weighs the patches it receives from. Several affinities
    (G, B, P, P) give as many CAMs (G, B, C, h, w).
    """
    sources = cam.flatten(2).to(affinity.dtype)  # (B, C, P)
    for _ in range(steps):
        sources = sources @ affinity.transpose(-2, -1)
    return sources.unflatten(-1, cam.shape[-2:])


def add_mirror(cam: Tensor) -> Tensor:
    """CAMs of B images and then of their mirror images → their sums: (…, 2B, C, h, w) → (…, B, C, h, w)."""
    upright, mirrored = cam.unflatten(-4, (2, -1)).unbind(-5)
    return upright + mirrored.flip(-1)


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, align_corners=False, float32: (B, K, h, w) → (B, K, *size)."""
    return F.interpolate(x.float(), tuple(size), mode='bilinear', align_corners=False)


def normalize(cam: Tensor) -> Tensor:
    """(M − min) / (max(M − min) + 1e-6) for every map of (B, C, H, W): the result is in 0..1."""
    cam = cam - cam.amin(dim=(-2, -1), keepdim=True)
    return cam / (cam.amax(dim=(-2, -1), keepdim=True) + 1e-6)


def add_background(cam: Tensor, background: float | None) -> Tensor:
    """A constant plane in front: (B, C, H, W) → (B, 1 + C, H, W). The argmax is the CAM mask; background wins ties.

    None adds none, for pictures whose every pixel belongs to a class.
    """
    return cam if background is None else F.pad(cam, (0, 0, 0, 0, 1, 0), value=background)


def refine(
    cam: Tensor, tags: Tensor, images: Tensor, par: PAR, backgrounds: Sequence[float | None]
) -> tuple[Tensor, Tensor]:
    """CAM → refined planes, for several background scores at once, which share the affinity of the image.

    A constant background plane goes in front of the present classes, the resolution is halved, and a softmax over the
    planes is refined by PAR and upsampled.

    Args:
        cam: (B, C, H, W) in 0..1.
        tags: (B, C), 1 for the classes in the picture.
        images: (B, 3, H, W).
        par: the refinement.
        backgrounds: S background scores in 0..1, or (None,) for pictures without background.

    Returns:
        planes (S, B, 1 + K, H, W) and classes (B, 1 + K), the class of each plane: 0 background, 1..C; K is the largest
        number of classes in a picture, and where a picture has fewer its last planes are zero. Without background
        there are K planes, of classes 0..C − 1.
    """
    height, width = images.shape[-2:]
    half = (max(height // 2, 1), max(width // 2, 1))
    # Few of the C classes are in a picture: theirs come first, and PAR never sees the others.
    present = tags > 0
    most = max(int(present.sum(dim=1).max()), 1)
    order = present.int().argsort(dim=1, descending=True, stable=True)[:, :most]  # (B, K)
    scores = cam.gather(1, order[:, :, None, None].expand(-1, -1, *cam.shape[-2:]))
    absent = ~present.gather(1, order)[:, :, None, None]
    scores = upsample(scores, half).masked_fill(absent, -torch.inf)
    planes = torch.cat([add_background(scores, background).softmax(dim=1) for background in backgrounds], dim=1)
    planes = upsample(par(upsample(images, half), planes), (height, width))
    classes = order if None in backgrounds else F.pad(order + 1, (1, 0))
    return planes.unflatten(1, (len(backgrounds), -1)).transpose(0, 1), classes


def reliable_masks(
    cam: Tensor, tags: Tensor, images: Tensor, par: PAR, low: float | None = 0.35, high: float | None = 0.55
) -> Tensor:
    """CAM → mask whose doubtful pixels are 255: (B, H, W) int64, 0 background, 1..C classes.

    A pixel is its class where the mask refined at the high background score is foreground, background where the one at
    the low score is background too, else ignored. Without background (both None) every pixel is its class, 0..C − 1.
    Arguments as for `refine`.
    """
    if low is None:
        (planes,), classes = refine(cam, tags, images, par, (None,))
        return classes.gather(1, planes.argmax(dim=1).flatten(1)).view(-1, *planes.shape[-2:])
    planes, classes = refine(cam, tags, images, par, (low, high))
    low_mask, high_mask = (classes.gather(1, p.argmax(dim=1).flatten(1)).view(-1, *p.shape[-2:]) for p in planes)
    ignored = (low_mask > 0) & (high_mask == 0)
    return high_mask.masked_fill(ignored, IGNORE_INDEX)
