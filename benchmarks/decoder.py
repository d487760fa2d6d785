"""A training step of stage 2, configs/seg/deeplabv3plus_lite0_animals.py: what the layout of the feature maps costs.

    python benchmarks/decoder.py

plain          plane after plane, PyTorch's default
channels last  as TimmCNN lays out its own and with them the decoder's
"""

from collections.abc import Callable

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from networks import photographs
from timing import DEVICE, Setting, Work, main

from aream_mm.registry import MODELS

CONFIG = 'configs/seg/deeplabv3plus_lite0_animals.py'


def variants(setting: Setting) -> dict[str, Callable[[], Work]]:
    size = (setting.size,) * 2
    images = photographs(setting.batch, *size)
    metainfo = dict(img_shape=size, ori_shape=size, pad_shape=size)
    samples = [SegDataSample(metainfo=metainfo) for _ in images]
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.randint(setting.num_classes + 1, (1, *size), device=DEVICE))
    init_default_scope('mmseg')

    def step(memory_format: torch.memory_format) -> Work:
        cfg = Config.fromfile(CONFIG)
        cfg.model.decode_head.num_classes = setting.num_classes + 1
        cfg.model.backbone.pretrained = False  # which takes as long
        network = MODELS.build(cfg.model).to(DEVICE).train()
        network.backbone.to(memory_format=memory_format)

        def work() -> None:
            network.zero_grad()
            network.loss(images, samples)['decode.loss_ce'].backward()

        return work

    return {
        'plain': lambda: step(torch.contiguous_format),
        'channels last': lambda: step(torch.channels_last),
    }


if __name__ == '__main__':
    main(__doc__, variants, Setting(size=256, batch=8, num_classes=6))
