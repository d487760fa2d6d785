"""A training step of stage 1 with AReAM on: against timm's network and against the equations read literally.

    python benchmarks/step.py
    python benchmarks/step.py --growth --out work_dirs/bench/step.json

floor   timm's DeiT-S forward, backward and AdamW, and one forward without a gradient
plain   benchmarks/plain.py
ours    the pass that is trained serves for the label CAM, the mirror images take one of their own

The floor has one class token, the others have one for each class: 216 tokens instead of 197 with 20 classes at 224 px.
"""

from collections.abc import Callable

import plain
import torch
import torch.nn.functional as F
from networks import photographs, segmentor, tags, timm_network, training_step
from timing import Setting, Work, main


def floor_step(setting: Setting, images: torch.Tensor, labels: torch.Tensor) -> Work:
    network = timm_network(setting.num_classes).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-5)

    def step() -> None:
        optimizer.zero_grad()
        with torch.no_grad():
            network(images)
        F.multilabel_soft_margin_loss(network(images), labels).backward()
        optimizer.step()

    return step


def our_step(images: torch.Tensor, labels: torch.Tensor, **model) -> Work:
    return training_step(segmentor(labels.shape[1], **model), images, labels)


def plain_step(images: torch.Tensor, labels: torch.Tensor) -> Work:
    network = segmentor(labels.shape[1]).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-5)
    return lambda: plain.step(network, optimizer, images, labels)


def variants(setting: Setting) -> dict[str, Callable[[], Work]]:
    images, labels = photographs(setting.batch, setting.size, setting.size), tags(setting.batch, setting.num_classes)
    return {
        'floor': lambda: floor_step(setting, images, labels),
        'plain': lambda: plain_step(images, labels),
        'ours': lambda: our_step(images, labels),
    }


if __name__ == '__main__':
    main(__doc__, variants, Setting(size=224, batch=8, num_classes=20))
