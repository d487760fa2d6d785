"""DualBranch: a timm CNN says what is where roughly, a timm ViT says which places belong together.

`CNNBackbone` is the CNN alone, for the plain CAM.
"""

from collections.abc import Mapping, Sequence

import torch
from mmengine.model import BaseModule
from timm.layers.norm_act import SyncBatchNormAct
from torch import Tensor, nn

from aream_mm.models.attention import Attended
from aream_mm.models.vit import Normalize, create_timm_model, levels_on_grid
from aream_mm.registry import MODELS


@MODELS.register_module()
class TimmCNN(BaseModule):
    """The feature maps of a timm CNN, or of its other networks; also a backbone for mmseg's decoders.

    Args:
        name: timm's model name, such as 'tf_efficientnet_lite0'.
        out_indices: which of timm's feature levels are returned (level i has stride 2^(i+1) by default).
        pretrained: False, True (timm's weights), or the path of a weights file in timm's key names. Read by
            `init_weights`, that is when training starts, never for testing.
        output_stride: dilate the last stages so that no level is coarser than this (8, 16 or 32).
        frozen: keep the weights fixed and the layers in evaluation mode.
        mean, std: RGB statistics in 0..1. Default: those of the pretrained weights.
        architecture: further arguments of timm's model, such as dict(dynamic_img_size=True) of a ViT, whose levels are
            its layers.
    """

    def __init__(
        self,
        name: str,
        out_indices: Sequence[int],
        pretrained: bool | str = False,
        output_stride: int = 32,
        frozen: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        architecture: Mapping | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.pretrained = pretrained
        self.frozen = frozen
        self.arguments = dict(features_only=True, out_indices=tuple(out_indices), **(architecture or {}))
        if output_stride != 32:  # timm refuses the option on models that cannot dilate, even at its default
            self.arguments['output_stride'] = output_stride
        self.cnn = create_timm_model(name, pretrained=False, **self.arguments)
        # The layout passes on to the maps, and to the decoder that computes on them: see benchmarks/decoder.py.
        self.cnn.to(memory_format=torch.channels_last)
        self.out_channels = self.cnn.feature_info.channels()
        self.normalize = Normalize(mean or self.cnn.pretrained_cfg['mean'], std or self.cnn.pretrained_cfg['std'])
        if frozen:
            self.requires_grad_(False)

    def init_weights(self) -> None:
        """Load `pretrained`; called by mmengine's Runner when training starts."""
        if self.pretrained and not self.is_init:
            self.cnn.load_state_dict(create_timm_model(self.name, self.pretrained, **self.arguments).state_dict())
        self.is_init = True

    def train(self, mode: bool = True) -> 'TimmCNN':
        for module in self.cnn.modules():
            # The conversion to SyncBatchNorm drops the activation that timm keeps in its norm layers.
            if type(module) is nn.SyncBatchNorm and hasattr(module, 'act'):
                module.__class__ = SyncBatchNormAct
        return super().train(mode and not self.frozen)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) RGB in 0..1 → one (B, D_i, H / stride_i, W / stride_i) for each of `out_indices`."""
        return self.cnn(self.normalize(images))


@MODELS.register_module()
class DualBranch(BaseModule):
    """Class map from a CNN, affinity and class tokens from a ViT; each has weights, statistics and freezing of its own.

    The CNN's feature levels are brought to the ViT's token grid and concatenated, so any patch size goes with any CNN.
    There is no class affinity: the CNN's map is propagated by the patch affinity alone. Learning rates of the branches
    are set in the config: optim_wrapper.paramwise_cfg.custom_keys 'backbone.cnn' and 'backbone.vit'.

    Args:
        cnn: config of a `TimmCNN`.
        vit: config of an `AttentionViT`.
    """

    def __init__(self, cnn: dict, vit: dict) -> None:
        super().__init__()
        self.cnn = MODELS.build(cnn)
        self.vit = MODELS.build(vit)
        self.num_layers = self.vit.num_layers
        self.patch_size = self.vit.patch_size

    def forward(
        self,
        images: Tensor,
        affinity: Mapping[int, float | Tensor] | None = None,
        logit_layers: Sequence[int] = (),
        token_layers: Sequence[int] = (),
    ) -> Attended:
        """As `AttentionViT.forward`; `features` (B, Σ D_i, h, w) are the CNN's."""
        attended = self.vit(images, affinity, logit_layers, token_layers)
        grid = attended.features.shape[-2:]
        return attended._replace(features=levels_on_grid(self.cnn(images), grid), class_affinity=None)


@MODELS.register_module()
class CNNBackbone(BaseModule):
    """A CNN alone, for the plain CAM: features at the size of the finest level, and nothing that attends.

    Args:
        cnn: config of a `TimmCNN`.
    """

    num_layers = 0

    def __init__(self, cnn: dict) -> None:
        super().__init__()
        self.cnn = MODELS.build(cnn)
        self.patch_size = min(self.cnn.cnn.feature_info.reduction())  # stride of the finest level

    def forward(
        self,
        images: Tensor,
        affinity: Mapping[int, float | Tensor] | None = None,
        logit_layers: Sequence[int] = (),
        token_layers: Sequence[int] = (),
    ) -> Attended:
        """As `AttentionViT.forward`, of a network without layers: only `features` (B, Σ D_i, h, w) are there."""
        asked = [*(affinity or ()), *logit_layers, *token_layers]
        if asked:
            raise ValueError(f'CNNBackbone: expected no layers, a CNN has no attention, got {asked}')
        levels = self.cnn(images)
        finest = max((level.shape[-2:] for level in levels), key=lambda size: size[0])
        return Attended(None, levels_on_grid(levels, finest), None, None, None, None)
