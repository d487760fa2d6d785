"""A training step of stage 1 on Conformer-S, with and without AReAM, against mmpretrain's network; and its size.

    python benchmarks/conformer.py
    python benchmarks/conformer.py --out work_dirs/bench/conformer.json

floor     mmpretrain's Conformer-S: forward, backward and AdamW
transcam  the model of configs/transcam_voc.py
aream     the model of configs/aream_conformer_voc.py: the same, one pass of image and mirror image for the label CAM,
          PAR, and the loss on three layers

At the end come parameters and GFLOPs of a forward pass at 384 px, as mmengine counts them: a multiplication with its
addition is one. The affinities of all layers are read, because it cannot count fused attention.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.analysis import get_model_complexity_info
from networks import photographs, samples, tags
from timing import DEVICE, Setting, Work, main
from torch import Tensor, nn

from aream_mm.config import load_config
from aream_mm.registry import MODELS

CONFIGS = Path(__file__).parents[1] / 'configs'


def segmentor(config: str, num_classes: int) -> nn.Module:
    """The model of a config, with random weights."""
    model = load_config(CONFIGS / config).model
    model.head.num_classes = num_classes
    return MODELS.build(model).to(DEVICE)


class AllAffinities(nn.Module):
    """The class map and logits of a segmentor whose network exposes the affinity of every layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        attended = self.model.backbone(images, self.model.propagation)
        class_map, logits = self.model.head(attended)
        return class_map, *logits.values(), attended.patch_affinity


def complexity(setting: Setting) -> str:
    """Parameters and GFLOPs of one picture."""
    model = AllAffinities(segmentor('transcam_voc.py', setting.num_classes)).eval()
    info = get_model_complexity_info(model, (3, setting.size, setting.size), show_table=False, show_arch=False)
    return f'{info["params"] / 1e6:.1f} M parameters, {info["flops"] / 1e9:.1f} GFLOPs'


def step(network: nn.Module, loss: Callable[[], Tensor]) -> Work:
    optimizer = torch.optim.AdamW(network.parameters(), 5e-5)

    def work() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return work


def floor_step(images: Tensor, labels: Tensor) -> Work:
    network = MODELS.build(dict(type='mmpretrain.Conformer', arch='small', drop_path_rate=0.1)).to(DEVICE)
    network.train()
    return step(
        network,
        lambda: sum(F.multilabel_soft_margin_loss(x[:, : labels.shape[1]], labels) for x in network(images)[0]),
    )


def our_step(config: str, images: Tensor, labels: Tensor) -> Work:
    network, packed = segmentor(config, labels.shape[1]).train(), samples(labels, images.shape[-2:])
    return step(network, lambda: sum(network.loss(images, packed).values()))


def variants(setting: Setting) -> dict[str, Callable[[], Work]]:
    images, labels = photographs(setting.batch, setting.size, setting.size), tags(setting.batch, setting.num_classes)
    return {
        'floor': lambda: floor_step(images, labels),
        'transcam': lambda: our_step('transcam_voc.py', images, labels),
        'aream': lambda: our_step('aream_conformer_voc.py', images, labels),
    }


if __name__ == '__main__':
    default = Setting(size=384, batch=8, num_classes=20)
    main(__doc__, variants, default)
    print(complexity(default))
