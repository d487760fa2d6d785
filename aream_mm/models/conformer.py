"""AttentionConformer: mmpretrain's Conformer; its CNN gives the class map, its transformer the affinity."""

from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.runner import CheckpointLoader
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from aream_mm.checkpoint import download
from aream_mm.models.attention import Attended, AttentionBackbone, AttentionMaps, run_layer
from aream_mm.models.timm_networks import Normalize, fetching
from aream_mm.registry import MODELS


@MODELS.register_module()
class AttentionConformer(AttentionBackbone):
    """mmpretrain's Conformer with one class token, whose forward returns tokens and affinities (`Attended`).

    Its CNN gives the class map, and the affinity of its transformer propagates that, as in TransCAM (arXiv 2203.07239).
    As there, the last convolution block does not halve the resolution: the CNN's features lie on the token grid, and
    every other one is the published network's. `features` are (B, D', h, w), D' = 1024 for 'small'. There is no final
    norm.

    Args:
        arch: 'tiny', 'small', 'base', or mmpretrain's dict of embed_dims, channel_ratio, num_heads and depths.
        pretrained: False, True (mmpretrain's ImageNet weights), or a file in mmpretrain's key names, of the classifier
            or of the Conformer alone. `init_weights` reads it at the start of training.
        drop_path_rate: stochastic depth at the last layer of both branches, rising linearly from 0.

    Raises:
        ValueError: a depth that is no multiple of 3, mmpretrain's weights for an architecture of one's own, or a file
            of other weights.
        OSError: no `pretrained` file, or no network for mmpretrain's weights.
    """

    patch_size = 16
    num_class_tokens = num_prefix_tokens = 1

    def __init__(
        self, arch: str | Mapping = 'small', pretrained: bool | str = False, drop_path_rate: float = 0.0
    ) -> None:
        super().__init__()
        if pretrained is True and not isinstance(arch, str):
            raise ValueError(
                f"AttentionConformer: expected arch 'tiny', 'small' or 'base' for pretrained=True, got {dict(arch)}"
            )
        self.arch = arch
        self.pretrained = pretrained
        self.normalize = Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        self.conformer = MODELS.build(dict(type='mmpretrain.Conformer', arch=arch, drop_path_rate=drop_path_rate))
        self.num_layers = self.conformer.depths
        if self.num_layers % 3:
            raise ValueError(f'AttentionConformer: expected depths that are a multiple of 3, got {self.num_layers}')
        del self.conformer.trans_norm  # the head has one of its own; weights without a gradient stop DDP
        last = self._stages[-1].fusion_block
        last.conv2.stride = last.residual_conv.stride = (1, 1)

    @property
    def _stages(self) -> list[nn.Module]:
        """mmpretrain's blocks of both branches; the first layer of each branch stands alone."""
        return [getattr(self.conformer, f'conv_trans_{i}') for i in range(2, self.num_layers + 1)]

    def init_weights(self) -> None:
        """mmpretrain's random weights, then `pretrained`; called by mmengine's Runner when training starts."""
        if self.is_init:
            return
        super().init_weights()
        if not self.pretrained:
            return
        source = self.pretrained
        if source is True:
            from mmpretrain.apis import ModelHub  # imports all of mmpretrain's inferencers

            with fetching(f"mmpretrain's weights of Conformer {self.arch!r}"):
                source = download(ModelHub.get(f'conformer-{self.arch}-p16_3rdparty_in1k').weights)
        elif not Path(source).is_file():
            raise FileNotFoundError(f'pretrained weights of Conformer {self.arch!r}: expected a file, got {source!r}')
        weights = CheckpointLoader.load_checkpoint(source, map_location='cpu')
        weights = {key.removeprefix('backbone.'): value for key, value in weights.get('state_dict', weights).items()}
        own = {key: value for key, value in weights.items() if not key.startswith(('head.', 'trans_norm.'))}
        try:
            self.conformer.load_state_dict(own)
        except RuntimeError as error:
            expected = f"expected weights of mmpretrain's Conformer {self.arch!r}"
            raise ValueError(f'{source}: {expected}, got {error}') from error

    def run(self, images: Tensor, maps: AttentionMaps) -> Attended:
        net = self.conformer
        stem = net.maxpool(net.act1(net.bn1(net.conv1(self.normalize(images)))))  # (B, 64, H / 4, W / 4)
        patches = net.trans_patch_conv(stem)  # (B, D, h, w)
        h, w = patches.shape[-2:]
        x = torch.cat([net.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        features = net.conv_1(stem, out_conv2=False)
        x, attention = run_layer(self, net.trans_1, x, maps.asked(0))
        maps.add(0, x, attention)
        for layer, stage in enumerate(self._stages, start=1):
            features, narrow = stage.cnn_block(features, out_conv2=True)
            x = x + stage.squeeze_block(narrow, x)
            x, attention = run_layer(self, stage.trans_block, x, maps.asked(layer))
            maps.add(layer, x, attention)
            features = stage.fusion_block(features, fusion_features=stage.expand_block(x, h, w), out_conv2=False)
        return maps.attended(x, features)
