"""ResNet-38, the wide one of "Wider or Deeper" (arXiv 1611.10080), on which weak supervision trains its stage 2."""

from collections.abc import Sequence
from itertools import pairwise

from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from aream_mm.registry import MODELS

PARTS = ('2a', '2b1', '2b2')  # of a unit, in the names of the weights


class Unit(nn.Module):
    """Residual unit: each convolution comes after BatchNorm and ReLU, as does that of the shortcut where there is one.

    Args:
        widths: channels of the input and after each of the two or three convolutions.
        kernels, dilations: of the convolutions.
        stride: of the first.
        dropout: probability of dropping a channel before the others.
    """

    def __init__(
        self,
        widths: Sequence[int],
        kernels: Sequence[int] = (3, 3),
        dilations: Sequence[int] = (1, 1),
        stride: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.parts = PARTS[: len(kernels)]
        strides = (stride, 1, 1)[: len(kernels)]
        each = zip(self.parts, pairwise(widths), kernels, dilations, strides, strict=True)
        for part, channels, kernel, dilation, step in each:
            padding = kernel // 2 * dilation
            self.add_module(f'bn_branch{part}', nn.BatchNorm2d(channels[0]))
            self.add_module(
                f'conv_branch{part}', nn.Conv2d(*channels, kernel, step, padding, dilation=dilation, bias=False)
            )
        self.conv_branch1 = None
        if stride > 1 or widths[0] != widths[-1]:
            self.conv_branch1 = nn.Conv2d(widths[0], widths[-1], 1, stride=stride, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, widths[0], h, w) → (B, widths[-1], h / stride, w / stride)."""
        shortcut = x
        for part in self.parts:
            x = getattr(self, f'bn_branch{part}')(x).relu()
            if part != PARTS[0]:
                x = self.dropout(x)
            elif self.conv_branch1 is not None:
                shortcut = self.conv_branch1(x)
            x = getattr(self, f'conv_branch{part}')(x)
        return shortcut + x


def level(name: str, units: int, widths: Sequence[int], kernels=(3, 3), dilations=(1, 1), **first) -> dict[str, Unit]:
    """So many units by name; the first has the options, and the others the dilation of its last convolution."""
    rest = ((widths[-1], *widths[1:]), kernels, (dilations[-1],) * len(kernels))
    others = {f'{name}_{i}': Unit(*rest) for i in range(1, units)}
    return {name: Unit(widths, kernels, dilations, **first), **others}


@MODELS.register_module()
class ResNet38(BaseModule):
    """A backbone of 17 wide residual units, dilated so that its features have stride 8.

    BatchNorm keeps the statistics of the pretrained weights, as a batch of stage 2 has few images.

    Args:
        pretrained: file of weights in the names of PSA's program (`conv1a.weight`, `b2.conv_branch2a.weight`, …), such
            as its `res38_cls.pth`, without the classifier. `init_weights` reads it at the start of training.

    Raises:
        ValueError: the file lacks weights of the network.
    """

    def __init__(self, pretrained: str | None = None) -> None:
        super().__init__()
        self.pretrained = pretrained
        self.conv1a = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        bottleneck = dict(kernels=(1, 3, 1), dilations=(1, 4, 1))
        units = {
            **level('b2', 3, (64, 128, 128), stride=2),
            **level('b3', 3, (128, 256, 256), stride=2),
            **level('b4', 6, (256, 512, 512), stride=2),
            # In place of the strides 2 that the first convolutions of b5 and b6 have for classification.
            **level('b5', 3, (512, 512, 1024), dilations=(1, 2)),
            **level('b6', 1, (1024, 512, 1024, 2048), **bottleneck, dropout=0.3),
            **level('b7', 1, (2048, 1024, 2048, 4096), **bottleneck, dropout=0.5),
        }
        self.units = list(units)
        for name, unit in units.items():
            self.add_module(name, unit)
        self.bn7 = nn.BatchNorm2d(4096)

    def init_weights(self) -> None:
        """Load `pretrained`; called by mmengine's Runner when training starts."""
        if self.pretrained and not self.is_init:
            loaded = CheckpointLoader.load_checkpoint(self.pretrained, map_location='cpu')
            missing = self.load_state_dict(loaded.get('state_dict', loaded), strict=False).missing_keys
            if missing:
                raise ValueError(
                    f'{self.pretrained}: expected weights of ResNet-38, {len(missing)} lack: {missing[:3]}'
                )
        self.is_init = True

    def train(self, mode: bool = True) -> 'ResNet38':
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """(B, 3, H, W) → one (B, 4096, H / 8, W / 8)."""
        x = self.conv1a(images)
        for name in self.units:
            x = getattr(self, name)(x)
        return (self.bn7(x).relu(),)
