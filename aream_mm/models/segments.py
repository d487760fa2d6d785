"""SegmentVote: the pixels of a segment take one class, that of most of them (Chen et al., arXiv 2305.05803)."""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmseg.structures import SegDataSample
from torch import Tensor

from aream_mm.checks import require
from aream_mm.datasets.contents import contents, read_digest
from aream_mm.datasets.images import files_below, open_image
from aream_mm.models.refiner import Refiner


class SegmentVote(Refiner):
    """Planes become the share of each class among the pixels of a segment; those of no segment keep their planes.

    Of several segments over a pixel one of a class comes before the background's; of these the highest share · quality
    of the best class decides. `pip install 'aream_mm[segments]'`.

    Args:
        folder: of whole images' segments: <sample_id>.json, SAM's automatic masks, of the quality predicted_iou ·
            stability_score, or <sample_id>.png, numbers, 0 for none. Without, scikit-image makes them of what it gets.
        method, options: 'felzenszwalb' or 'slic' of skimage.segmentation, and its keyword arguments.
        background: whether the first plane is the background.
    """

    mixes_planes = True

    def __init__(
        self, folder: str | None = None, method: str | None = None, background: bool = True, **options: Any
    ) -> None:
        super().__init__()
        self.folder, self.background, self.reads_samples = folder and Path(folder), background, bool(folder)
        library = 'pycocotools' if folder else 'skimage'
        if find_spec(library) is None:
            raise ImportError(f"SegmentVote: expected {library}, got none; pip install 'aream_mm[segments]'")
        if folder:
            good = self.folder.is_dir() and not (method or options)
            require('SegmentVote.folder', folder, 'a folder, and no method or options beside it', good)
            files = files_below(self.folder)
            content = json.dumps([files, contents(read_digest, [self.folder / file for file in files])]).encode()
            # A buffer, so that masks by other segments are not taken for the same.
            self.register_buffer('digest', torch.tensor(list(hashlib.sha256(content).digest())))
        else:
            method = method or 'slic'
            require('SegmentVote.method', method, "'felzenszwalb' or 'slic'", method in ('felzenszwalb', 'slic'))
            self.make = partial(getattr(import_module('skimage.segmentation'), method), **options)
            self.make(np.zeros((8, 8, 3)))  # refuses options that it does not have

    def refine(self, images: Tensor, planes: Tensor, samples: Sequence[SegDataSample] | None = None) -> Tensor:
        refined, (classes, height, width) = planes.detach().flatten(2).clone(), planes.shape[1:]
        labels = planes.flatten(2).max(dim=1).indices.cpu().numpy()
        for i, (answer, label) in enumerate(zip(refined, labels, strict=True)):
            if self.folder:
                found = self.read(samples[i] if samples else SegDataSample(), height, width)
            else:
                found = listed(1 + self.make(images[i].detach().permute(1, 2, 0).cpu().numpy()))
            ballots = []
            for pixels, quality in found:
                share = np.bincount(label[pixels], minlength=classes) / max(len(pixels), 1)
                strength = share.max() * quality if share.argmax() or not self.background else 0
                ballots.append((strength, answer.new_tensor(share), pixels))
            for _, share, pixels in sorted(ballots, key=lambda ballot: ballot[0]):  # the strongest last
                answer[:, pixels] = share[:, None]
        return refined.view_as(planes)

    def read(self, sample: SegDataSample, height: int, width: int) -> list[tuple[np.ndarray, float]]:
        """What `listed` returns, of an image that is refined at this size."""
        if 'sample_id' not in sample:
            raise ValueError('SegmentVote.folder: expected whole images of a data set, got some without a sample_id')
        file, size = self.folder / f'{sample.sample_id}.json', tuple(sample.ori_shape)
        nearest = np.ix_(*((np.arange(n) * 2 + 1) * m // (2 * n) for n, m in zip((height, width), size, strict=True)))

        def fitted(mask: np.ndarray) -> np.ndarray:
            if mask.shape != size:
                raise ValueError(f'{mask.shape} (height, width), the image has {size}')
            return mask[nearest]

        try:
            if not file.is_file():
                return listed(fitted(np.array(open_image(file := file.with_suffix('.png')))))
            entries = json.loads(file.read_bytes())
            entries = entries['annotations'] if isinstance(entries, dict) else entries
            decode = import_module('pycocotools.mask').decode
            pixels = [np.flatnonzero(fitted(decode(entry['segmentation']))) for entry in entries]
            quality = [entry['predicted_iou'] * entry['stability_score'] for entry in entries]
            return list(zip(pixels, quality, strict=True))
        except Exception as error:  # of whatever the file holds
            raise ValueError(f'{file}: expected segments of {sample.img_path}, got {error!r}') from error


def listed(numbers: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Numbers of segments (H, W), 0 for none → the pixels of each, and its quality."""
    return [(np.flatnonzero(numbers == n), 1.0) for n in np.unique(numbers) if n > 0]
