"""CAMHead: the two classification heads, one on the class tokens and one on the class map that becomes the CAM."""

import math

from mmengine.model import BaseModule
from torch import Tensor, nn

from aream_mm.checks import require
from aream_mm.models.attention import Attended, at_least_float32
from aream_mm.registry import MODELS


@MODELS.register_module()
class CAMHead(BaseModule):
    """Class map = conv D' → C on the features; patch logits pool it over space; class logits from the class tokens.

    With C class tokens the class logits are the mean over channels of each token. A single token is read by a linear
    layer after a norm. A network without class tokens has patch logits alone: the plain CAM.

    Args:
        num_classes: C, without background.
        in_channels: D', channels of the features.
        kernel_size: of the convolution; 3 in MCTformer, 1 for the plain CAM of a CNN.
        token_channels: D of the single class token; None where the network has one token per class, or none.
        pooling: 'mean', the paper's, or 'log_mean_exp' (Pinheiro and Collobert, arXiv 1411.6228), between mean and
            maximum: some patches that show the class are enough, and the others need not answer to it.

    Raises:
        ValueError: a checkpoint of another number of classes; class tokens that do not fit the arguments; no such
            pooling.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        kernel_size: int = 3,
        token_channels: int | None = None,
        pooling: str = 'mean',
    ) -> None:
        super().__init__()
        require('CAMHead.pooling', pooling, "one of 'mean', 'log_mean_exp'", pooling in ('mean', 'log_mean_exp'))
        self.num_classes, self.pooling = num_classes, pooling
        self.class_map = nn.Conv2d(in_channels, num_classes, kernel_size, padding=kernel_size // 2)
        self.token_logits = token_channels and nn.Sequential(
            nn.LayerNorm(token_channels), nn.Linear(token_channels, num_classes)
        )

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *options) -> None:
        # mmengine only warns of a mismatch and goes on with untrained weights.
        bias = state_dict.get(f'{prefix}class_map.bias')
        if bias is not None and len(bias) != self.num_classes:
            raise ValueError(
                f'CAMHead: the config has num_classes={self.num_classes}, the checkpoint was trained with {len(bias)}'
            )
        super()._load_from_state_dict(state_dict, prefix, *options)

    def forward(self, attended: Attended) -> tuple[Tensor, dict[str, Tensor]]:
        """Class map (B, C, h, w) before ReLU, and logits (B, C) by the name of the head: 'class' and 'patch'."""
        class_map = self.class_map(attended.features)
        if self.pooling == 'mean':
            patch_logits = class_map.mean(dim=(-2, -1))
        else:
            scores = at_least_float32(class_map).flatten(2)  # (B, C, P)
            patch_logits = scores.logsumexp(dim=2) - math.log(scores.shape[2])
        tokens, single = attended.class_tokens, self.token_logits is not None  # (B, T, D)
        if tokens is None and single:
            raise ValueError('CAMHead: expected no token_channels for a network without class tokens')
        if tokens is None:
            return class_map, {'patch': patch_logits}
        if single and tokens.shape[1] != 1:
            raise ValueError(f'CAMHead: expected a single class token for token_channels, got {tokens.shape[1]}')
        class_logits = self.token_logits(tokens[:, 0]) if single else tokens.mean(dim=-1)
        if class_logits.shape[1] != self.num_classes:
            raise ValueError(
                f'CAMHead: expected {self.num_classes} class tokens (num_classes), got {class_logits.shape[1]}; set '
                'num_class_tokens of the network, or token_channels of the head for a single token'
            )
        return class_map, {'class': class_logits, 'patch': patch_logits}
