"""AttentionLoss: a loss on the attention, beside the classification, and what it needs for that."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from aream_mm.models.attention import Attended


class AttentionLoss(nn.Module, ABC):
    """Base class of the losses that `CAMSegmentor` takes as `attention_loss`.

    A config names your own subclass, registered. `CAMSegmentor` adds `num_layers`, the depth of the network, to its
    arguments. Only what it reads is computed:

    name             its value is logged as `loss_<name>`
    logit_layers     layers whose mean logits it reads, `attended.mean_logits`
    affinity_layers  layers whose affinity it reads with the gradient, `attended.layer_affinity`
    label_affinity   layer → weight of the affinity that propagates the CAM of its label: {} propagates none, None makes
                     no label, and `masks` is then None
    label_steps      how often the CAM of its label is propagated
    layer_groups     layers that belong together, by name: rows of the affinity profile
    """

    name: str
    logit_layers: Sequence[int] = ()
    affinity_layers: Sequence[int] = ()
    label_affinity: Mapping[int, float | Tensor] | None = None
    label_steps: int = 1
    layer_groups: Mapping[str, Sequence[int]] = {}

    @abstractmethod
    def forward(self, attended: Attended, masks: Tensor | None) -> Tensor:
        """What the network made of the batch, and the reliable masks (B, H, W) of its CAMs → the loss, a scalar.

        Masks hold 0 for background, 1..C, and 255 where doubtful or not tagged at all; without background 0..C − 1.
        """
