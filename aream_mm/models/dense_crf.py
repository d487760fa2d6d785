"""Dense CRF: planes follow the colours of the image, over any distance (Krähenbühl & Koltun, NeurIPS 2011)."""

import os
import sys
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from aream_mm.checks import numbers, require, require_numbers, require_whole
from aream_mm.models.refiner import Refiner

LEAST_PROBABILITY = 1e-5  # its logarithm stands for that of all below


def mean_field(image: np.ndarray, energies: np.ndarray, gaussian: dict, bilateral: dict, num_iters: int) -> np.ndarray:
    """Image (H, W, 3) uint8 RGB, energies (K, H, W) float32 → probabilities (K, H, W) float32.

    gaussian, bilateral: options of pydensecrf's addPairwiseGaussian and addPairwiseBilateral.
    """
    from pydensecrf.densecrf import DenseCRF2D

    classes, height, width = energies.shape
    crf = DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(energies.reshape(classes, -1))
    crf.addPairwiseGaussian(**gaussian)
    crf.addPairwiseBilateral(rgbim=image, **bilateral)
    return np.array(crf.inference(num_iters), np.float32).reshape(energies.shape)


class DenseCRF(Refiner):
    """Mean-field inference of a fully connected CRF, by pydensecrf: `pip install 'aream_mm[crf]'`.

        energy(x) = Σ_i unary_i(x_i) + Σ_{i<j, x_i ≠ x_j} k_ij
        k_ij = gaussian_compat · exp(−|p_i − p_j|² / (2 · gaussian_sxy²))
               + bilateral_compat · exp(−|p_i − p_j|² / (2 · bilateral_sxy²) − |I_i − I_j|² / (2 · bilateral_srgb²))

    over positions p and colours I. Both kernels are normalised: compat does not depend on the size of the image. The
    defaults are DeepLab's at half the resolution, as stage 1 refines; bilateral_sxy=67 is that of whole images, as in
    stage 2. PSA has gaussian_sxy=3, bilateral_sxy=80, bilateral_srgb=13, bilateral_compat=10, and IRN
    label_confidence=0.7, gaussian_sxy=3, bilateral_sxy=50, bilateral_srgb=5, bilateral_compat=10. The planes of a CAM
    are nearly equal, and wide kernels ruin them: docs/refining.md has figures.

    loky's processes compute images side by side on the CPU, for pydensecrf holds Python's lock.

    Args:
        num_iters: rounds of mean field; with 0 the result is the unary's probabilities.
        label_confidence: None takes the planes as probabilities, unary = −log(max(plane, 1e-5)). A number in 0..1 is
            the probability of a pixel's highest plane; the other classes of the image share the rest.
        gaussian_sxy, bilateral_sxy: standard deviation of a kernel in pixels of the images given.
        bilateral_srgb: that of the kernel of colours in grey levels, of 0..255.
        gaussian_compat, bilateral_compat: weight of a kernel.
        workers: most processes. Default: the CPUs, shared among the processes that a launcher has started here.

    Shapes: images (B, 3, H, W) RGB in 0..1, planes (B, K, H, W) of probabilities → (B, K, H, W) float32 that sum to 1
    at each pixel. Planes of zeros are classes the image does not have: they stay zero and take no time.

    Raises:
        ImportError: without pydensecrf.
        RuntimeError: a process of the pool has ended, as where memory runs out.
    """

    mixes_planes = True  # the classes of a pixel compete

    def __init__(
        self,
        num_iters: int = 10,
        label_confidence: float | None = None,
        gaussian_sxy: float = 1,
        gaussian_compat: float = 3,
        bilateral_sxy: float = 34,
        bilateral_srgb: float = 3,
        bilateral_compat: float = 4,
        workers: int | None = None,
    ) -> None:
        super().__init__()
        if missing := [name for name in ('pydensecrf', 'loky') if find_spec(name) is None]:
            raise ImportError(f"DenseCRF: expected {' and '.join(missing)}, got none; pip install 'aream_mm[crf]'")
        good = label_confidence is None or numbers([label_confidence]) and 0 < label_confidence < 1
        require('DenseCRF.label_confidence', label_confidence, 'a number between 0 and 1, or None', good)
        widths = dict(gaussian_sxy=gaussian_sxy, bilateral_sxy=bilateral_sxy, bilateral_srgb=bilateral_srgb)
        for name, width in widths.items():
            require(f'DenseCRF.{name}', width, 'a number above 0', numbers([width]) and width > 0)
        require_numbers('DenseCRF', gaussian_compat=gaussian_compat, bilateral_compat=bilateral_compat)
        require_whole('DenseCRF', num_iters=num_iters)
        require_whole('DenseCRF', low=1, workers=1 if workers is None else workers)
        self.num_iters = num_iters
        self.label_confidence = label_confidence
        self.gaussian = dict(sxy=gaussian_sxy, compat=gaussian_compat)
        self.bilateral = dict(sxy=bilateral_sxy, srgb=bilateral_srgb, compat=bilateral_compat)
        self.workers = workers or max(os.cpu_count() // int(os.environ.get('LOCAL_WORLD_SIZE', 1)), 1)

    def energies(self, planes: Tensor) -> Tensor:
        """The unary term: −log of the probability of each class, (K, H, W) → (K, H, W)."""
        if self.label_confidence is not None:
            other = (1 - self.label_confidence) / (len(planes) - 1)
            labels = planes.max(dim=0, keepdim=True).indices
            planes = torch.full_like(planes, other).scatter_(0, labels, self.label_confidence)
        return -planes.clamp(min=LEAST_PROBABILITY).log()

    def refine(self, images: Tensor, planes: Tensor) -> Tensor:
        import cloudpickle
        from loky import get_reusable_executor

        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # so that the processes import no torch
        pool, options = get_reusable_executor(self.workers), (self.gaussian, self.bilateral, self.num_iters)
        refined, waiting = torch.zeros_like(planes, device='cpu'), []
        for answer, image, scores in zip(refined, images.detach().cpu(), planes.detach().float().cpu(), strict=True):
            present = scores.flatten(1).any(dim=1)
            if present.sum() < 2:
                answer[present] = 1
                continue
            pixels = (image * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
            unary = self.energies(scores[present]).numpy()
            waiting.append((answer, present, pool.submit(mean_field, pixels, unary, *options)))
        for answer, present, future in waiting:
            answer[present] = torch.from_numpy(future.result()).to(answer)
        return refined.to(planes.device)
