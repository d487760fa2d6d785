"""timm's networks with their own statistics and weights: what the ViT and the CNN of stage 1, and stage 2, share."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import timm
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from timm.layers.norm_act import SyncBatchNormAct
from torch import Tensor, nn

from aream_mm.registry import MODELS


def create_timm_model(name: str, pretrained: bool | str, **arguments) -> nn.Module:
    """timm's model `name`; `pretrained` is True for timm's own weights, or the path of a file in timm's key names.

    Raises:
        OSError: no such file, or no network to fetch timm's weights.
        ValueError: the file lacks weights of the model, as one in another program's key names does.
    """
    if not isinstance(pretrained, str):
        with fetching(f"timm's weights of {name!r}"):
            return timm.create_model(name, pretrained=pretrained, **arguments)
    if not Path(pretrained).is_file():
        raise FileNotFoundError(f'pretrained weights of {name!r}: expected a file, got {pretrained!r}')
    overlay = dict(file=pretrained, custom_load=pretrained.endswith('.npz'))
    missing, load = [], nn.Module.load_state_dict

    def recorded(*args, **kwargs):  # timm does not insist on all weights once it has cut the classifier
        result = load(*args, **kwargs)
        missing.extend(result.missing_keys)
        return result

    with patch.object(nn.Module, 'load_state_dict', recorded):
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)
    # timm flattens the names of feature levels, or puts the network into a wrapper.
    own = {key.removeprefix('model.').replace('.', '_') for key in model.state_dict()}
    after_the_layers = ('norm.', 'fc_norm.', 'attn_pool.')  # nothing here reads them
    lost = [key for key in missing if key.replace('.', '_') in own and not key.startswith(after_the_layers)]
    if lost:
        raise ValueError(
            f"{pretrained}: expected weights of {name!r} in timm's key names, {len(lost)} lack: {lost[:3]}"
        )
    return model


@contextmanager
def fetching(what: str) -> Iterator[None]:
    """Says of a download that fails (OSError) how a file is given in its place."""
    try:
        yield
    except OSError as error:
        keys = 'model.backbone.pretrained=FILE, or of each part model.backbone.vit.pretrained=FILE and cnn likewise'
        raise OSError(f'expected to download {what}, got {error!r}; or give a file: --cfg-options {keys}') from error


class Normalize(nn.Module):
    """RGB images (B, 3, H, W) in 0..1 to the mean and standard deviation a network was pretrained with."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def levels_on_grid(levels: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """Feature levels (B, D_i, h_i, w_i) → (B, Σ D_i, *grid), bilinear."""
    return torch.cat([F.interpolate(level, grid, mode='bilinear', align_corners=False) for level in levels], dim=1)


@MODELS.register_module()
class TimmCNN(BaseModule):
    """The feature maps of a timm CNN, or of its other networks; also a backbone for mmseg's decoders.

    Args:
        name: timm's model name, such as 'tf_efficientnet_lite0'.
        out_indices: which of timm's feature levels are returned (level i has stride 2^(i+1) by default).
        pretrained: False, True (timm's weights), or a file in timm's key names. `init_weights` reads it at the start
            of training.
        output_stride: dilate the last stages so that no level is coarser than this (8, 16 or 32).
        frozen: keep the weights fixed and the layers in evaluation mode.
        mean, std: RGB statistics in 0..1. Default: those of the pretrained weights.
        architecture: further arguments of timm's model, such as dict(dynamic_img_size=True) of a ViT.
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
