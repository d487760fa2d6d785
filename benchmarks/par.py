"""Reliable masks of a batch, and PAR with a plane for every class: against the equations read literally.

    python benchmarks/par.py
    python benchmarks/par.py --growth --out work_dirs/bench/par.json
    python benchmarks/par.py --size 1024 --batch 1      # PAR of 512×512 pixels and 21 planes

plain        benchmarks/plain.py
reliable     cam.reliable_masks: CAM → mask, refined at two background scores and half the resolution
every plane  PAR alone at half the resolution, with a plane for each class and the background
"""

from collections.abc import Callable

import plain
import torch
from networks import photographs, tags
from timing import DEVICE, Setting, Work, main

from aream_mm.models import cam
from aream_mm.models.par import PAR


def variants(setting: Setting) -> dict[str, Callable[[], Work]]:
    batch, size, classes = setting.batch, setting.size, setting.num_classes
    images, labels = photographs(batch, size, size), tags(batch, classes)
    coarse = torch.rand(batch, classes, size // 16, size // 16, device=DEVICE)
    scores, par = cam.normalize(cam.upsample(coarse, (size, size))), PAR().to(DEVICE)
    half = cam.upsample(images, (size // 2, size // 2))
    planes = torch.rand(batch, classes + 1, size // 2, size // 2, device=DEVICE)
    return {
        'plain': lambda: lambda: plain.reliable_masks(scores, labels, images),
        'reliable': lambda: lambda: cam.reliable_masks(scores, labels, images, par),
        'every plane': lambda: lambda: par(half, planes),
    }


if __name__ == '__main__':
    main(__doc__, variants, Setting(size=224, batch=8, num_classes=20))
