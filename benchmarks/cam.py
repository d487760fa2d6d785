"""CAM masks of photographs of 3:4 with their mirror images: against timm's network and against the equations read
literally.

    python benchmarks/cam.py
    python benchmarks/cam.py --growth --out work_dirs/bench/cam.json

floor      timm's DeiT-S over the photographs and their mirror images, no gradient
plain      benchmarks/plain.py
cam        CAMSegmentor.predict, up to the mask of the photograph's size
deep       the same where one layer propagates, so that fused attention serves the others
autocast   the same as cam under autocast, which is what fp16=True of the loops and of PseudoMaskHook does
"""

from collections.abc import Callable

import plain
import torch
from networks import photographs, prediction, segmentor, tags, timm_network
from timing import Setting, Work, main


def floor_forward(setting: Setting, images: torch.Tensor) -> Work:
    network = timm_network(setting.num_classes).eval()
    whole = [round(side / 16) * 16 for side in images.shape[-2:]]
    views = torch.nn.functional.interpolate(torch.cat([images, images.flip(-1)]), whole, mode='bilinear')
    return torch.no_grad()(lambda: network(views))


def our_cam(images: torch.Tensor, labels: torch.Tensor, fp16: bool = False, **test_cfg) -> Work:
    return prediction(segmentor(labels.shape[1], test_cfg=test_cfg), images, labels, fp16)


def plain_cam(images: torch.Tensor, labels: torch.Tensor) -> Work:
    network = segmentor(labels.shape[1]).eval()
    return lambda: plain.predict(network, images, labels)


def variants(setting: Setting) -> dict[str, Callable[[], Work]]:
    images = photographs(setting.batch, setting.size * 3 // 4, setting.size)
    labels = tags(setting.batch, setting.num_classes)
    return {
        'floor': lambda: floor_forward(setting, images),
        'plain': lambda: plain_cam(images, labels),
        'cam': lambda: our_cam(images, labels),
        'deep': lambda: our_cam(images, labels, propagate_layers=(11,)),
        'autocast': lambda: our_cam(images, labels, fp16=True),
    }


if __name__ == '__main__':
    main(__doc__, variants, Setting(size=500, batch=2, num_classes=20))
