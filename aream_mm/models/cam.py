"""Class activation maps as pure tensor functions, in the order of the paper: activate, propagate, normalise, mask.

B images, C classes without background, K planes, h×w = P patches, H×W pixels. Images are RGB in 0..1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from aream_mm.masks import IGNORE_INDEX
from aream_mm.models.attention import AffinityInRows, at_least_float32
from aream_mm.models.refiner import Refiner


def activate(class_map: Tensor, class_affinity: Tensor | None = None) -> Tensor:
    """ReLU(class map) ⊙ mean_l A[l][class → patch]: (B, C, h, w), (B, C, P) → (B, C, h, w)."""
    cam = class_map.relu()
    return cam if class_affinity is None else cam * class_affinity.unflatten(2, cam.shape[-2:])


def propagate(cam: Tensor, affinity: Tensor | AffinityInRows | None, steps: int = 1) -> Tensor:
    """cam[p] ← Σ_q affinity[p, q] · cam[q], `steps` times: (B, C, h, w), (B, P, P) → (B, C, h, w).

    A row of the affinity belongs to the patch that receives and weighs the patches it receives from. Several affinities
    (G, B, P, P) give as many CAMs (G, B, C, h, w), and None the CAM itself.

    >>> cam, affinity = torch.eye(4).view(1, 4, 2, 2), torch.full((1, 4, 4), 1 / 4)  # four classes on 2 × 2 patches
    >>> propagate(cam, affinity).unique()
    tensor([0.2500])
    """
    if affinity is None:
        return cam
    sources, whole = cam.flatten(2), isinstance(affinity, Tensor)  # (B, C, P)
    with torch.autocast(sources.device.type, enabled=False):  # a small product, and the thresholds come after it
        for _ in range(steps):
            sources = sources.to(affinity.dtype) @ affinity.transpose(-2, -1) if whole else affinity.weigh(sources)
    return sources.unflatten(-1, cam.shape[-2:])


class Present(NamedTuple):
    """The classes of B images. Few of the C classes are in an image: what is done at full resolution is done for K.

    classes  (B, K)   indices in 0..C − 1, the present ones first, in rising order
    mask     (B, K)   whether the image has the class
    """

    classes: Tensor
    mask: Tensor


def present_classes(tags: Tensor, least: int = 1) -> Present:
    """Tags (B, C), 1 for the classes in the image; K is the largest number of them in one, and at least `least`.

    This waits for the device, to learn K; nothing else here does.
    """
    mask = tags > 0
    most = max(int(mask.sum(dim=1).max()), least)
    classes = mask.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    return Present(classes, mask.gather(1, classes))


def select(planes: Tensor, classes: Tensor) -> Tensor:
    """(B, C, h, w), classes (B, K) → (B, K, h, w)."""
    return planes.gather(1, classes[:, :, None, None].expand(-1, -1, *planes.shape[-2:]))


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, align_corners=False, float32 or wider: (B, K, h, w) → (B, K, *size)."""
    return F.interpolate(at_least_float32(x), tuple(size), mode='bilinear', align_corners=False)


def normalize(cam: Tensor) -> Tensor:
    """(M − min) / (max(M − min) + 1e-6) for every map of (B, C, H, W): the result is in 0..1.

    >>> normalize(torch.tensor([[[[2.0, 3.0, 4.0]]]]))  # (1, 1, 1, 3)
    tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """
    cam = cam - cam.amin(dim=(-2, -1), keepdim=True)
    return cam / (cam.amax(dim=(-2, -1), keepdim=True) + 1e-6)


def add_background(cam: Tensor, background: float | None) -> Tensor:
    """A constant plane in front: (B, C, H, W) → (B, 1 + C, H, W). The argmax is the CAM mask; background wins ties.

    None adds none, for images whose every pixel belongs to a class.
    """
    return cam if background is None else F.pad(cam, (0, 0, 0, 0, 1, 0), value=background)


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(H, W) times the scale, rounded down to whole pixels, at least one."""
    height, width = size
    return max(int(height * scale), 1), max(int(width * scale), 1)


def refine(
    cam: Tensor,
    present: Tensor,
    images: Tensor,
    refiner: Refiner,
    backgrounds: Sequence[float | None],
    scale: float = 0.5,
    samples: Sequence | None = None,
) -> Tensor:
    """CAM → refined planes, for several background scores at once, which share the affinity of the image.

    A constant background plane goes in front of the classes. At `scale` a softmax over the planes is refined, and then
    upsampled. The planes of absent classes are zero before and after.

    Args:
        cam: (B, K, H, W) in 0..1.
        present: (B, K), whether the image has the class of the plane.
        images: (B, 3, H, W).
        refiner: such as `PAR`; one that mixes planes gets those of one background score at a time.
        backgrounds: S background scores in 0..1, or (None,) for images without background.
        scale: resolution at which the planes are refined, relative to the images.
        samples: those of the images, for a refiner that reads them.

    Returns:
        (S, B, 1 + K, H, W), zero for absent classes; (1, B, K, H, W) without background.
    """
    low = scaled(images.shape[-2:], scale)
    scores = upsample(cam, low).masked_fill(~present[:, :, None, None], -torch.inf)
    planes = [add_background(scores, background).softmax(dim=1) for background in backgrounds]
    planes = planes if refiner.mixes_planes else [torch.cat(planes, dim=1)]
    images, size = upsample(images, low), images.shape[-2:]
    planes = upsample(torch.cat([refiner(images, together, samples) for together in planes], dim=1), size)
    return planes.unflatten(1, (len(backgrounds), -1)).transpose(0, 1)


def reliable_masks(
    cam: Tensor,
    tags: Tensor | Present,
    images: Tensor,
    par: Refiner,
    low: float | None = 0.35,
    high: float | None = 0.55,
) -> Tensor:
    """CAM → mask whose doubtful pixels are 255: (B, H, W) int64, 0 background, 1..C classes.

    A pixel is its class where the mask refined at the high background score is foreground, background where the one at
    the low score is background too, else ignored. Without background (both None) every pixel is its class, 0..C − 1.

    Args:
        cam: (B, C, H, W) in 0..1, or (B, K, H, W) of the present classes.
        tags: (B, C), 1 for the classes in the image, or the present classes.
        images: as for `refine`.
        par: the refiner.
        low, high: background scores in 0..1.

    >>> from aream_mm.models.par import PAR
    >>> cam = torch.linspace(0, 1, 64).expand(1, 2, 8, 64)  # two classes, of which the image has the second
    >>> masks = reliable_masks(cam, torch.tensor([[0, 1]]), torch.rand(1, 3, 8, 64), PAR([1], 2))
    >>> tuple(masks.shape), masks.unique()
    ((1, 8, 64), tensor([  0,   2, 255]))
    """
    present = tags
    if not isinstance(tags, Present):
        present = present_classes(tags)
        cam = select(cam, present.classes)
    if low is None:
        (planes,) = refine(cam, present.mask, images, par, (None,))
        return class_ids(planes, present.classes)
    ids = F.pad(present.classes + 1, (1, 0))
    low_mask, high_mask = (class_ids(planes, ids) for planes in refine(cam, present.mask, images, par, (low, high)))
    return ignore_doubtful(low_mask, high_mask)


def ignore_doubtful(low_mask: Tensor, high_mask: Tensor) -> Tensor:
    """The mask at the high background score, 255 where it is background and the one at the low score is not.

    Masks of one shape, 0 for background.
    """
    return high_mask.masked_fill((low_mask > 0) & (high_mask == 0), IGNORE_INDEX)


def class_ids(planes: Tensor, ids: Tensor) -> Tensor:
    """The id of the highest plane at each pixel, the first of equal ones: (B, K, H, W), ids (B, K) → (B, H, W)."""
    highest = planes.max(dim=1).indices  # ten times faster on a CPU than argmax, which does not vectorise here
    return ids.gather(1, highest.flatten(1)).view_as(highest)
