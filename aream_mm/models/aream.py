"""AReAM, the adaptive re-activation mechanism: shallow affinity supervises deep attention (arXiv 2305.03112)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Integral

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from aream_mm.checks import numbers, require, require_numbers, require_whole
from aream_mm.models.attention import Attended, at_least_float32, mean_of


def pair_labels(masks: Tensor, grid: tuple[int, int], ignore_index: int = 255) -> Tensor:
    """Mask → pairs of patches: (B, H, W) → (B, P, P) int64; 1 same class, 0 different, `ignore_index` if either end is.

    The masks are brought to the grid (h, w), P = h·w, by nearest neighbour; background counts as a class.

    >>> pair_labels(torch.tensor([[[0, 2, 255]]]), (1, 3))  # (1, 1, 3) → (1, 3, 3)
    tensor([[[  1,   0, 255],
             [  0,   1, 255],
             [255, 255, 255]]])
    """
    labels = F.interpolate(masks[:, None].float(), tuple(grid), mode='nearest').flatten(1).long()  # (B, P)
    pairs = (labels[:, :, None] == labels[:, None, :]).long()
    ignored = labels == ignore_index
    return pairs.masked_fill(ignored[:, :, None] | ignored[:, None, :], ignore_index)


def pair_counts(pairs: Tensor) -> Tensor:
    """(B, P, P) of 1, 0 and 255 → (n_pos, n_neg), int64."""
    return torch.stack([(pairs == 1).sum(), (pairs == 0).sum()])


def affinity_loss(mean_logits: Tensor, pairs: Tensor, counts: Tensor | None = None) -> Tensor:
    """L_aff[l] = ½ Σ_pos (1 − σ(Z[l])) / (n_pos + 1) + ½ Σ_neg σ(Z[l]) / (n_neg + 1): one value per layer.

    Counts are over the batch. Without a labelled pair the loss is 0 and so is its gradient.

    Args:
        mean_logits: (L', B, P, P), Z of the supervised layers.
        pairs: (B, P, P) of 1, 0 and 255 as `pair_labels` makes them.
        counts: (n_pos, n_neg) of a batch of which these pairs are a part; the losses of all parts then add up to that
            of the batch. Default: those of `pairs`.

    Returns:
        (L',), float32 or wider.

    >>> pairs = torch.tensor([[[1, 0], [0, 1]]])  # (1, 2, 2)
    >>> affinity_loss(torch.stack([40 * pairs - 20, 20 - 40 * pairs]), pairs)  # (2, 1, 2, 2): right, and wrong
    tensor([0.0000, 0.6667])
    """
    if mean_logits.shape[1:] != pairs.shape:
        raise ValueError(
            f'affinity_loss: expected pairs of shape {tuple(mean_logits.shape[1:])} to match the mean logits, '
            f'got {tuple(pairs.shape)}'
        )
    positive, negative = pairs == 1, pairs == 0
    positive_weight, negative_weight = 0.5 / ((pair_counts(pairs) if counts is None else counts) + 1)
    # σ enters with one sign for positive and the other for negative pairs: one product, and the constant apart.
    weight = negative * negative_weight - positive * positive_weight  # (B, P, P)
    attraction = (at_least_float32(mean_logits).sigmoid() * weight).sum(dim=(1, 2, 3))
    return attraction + positive.sum() * positive_weight


def layer_entropy(cam: Tensor, affinity: Tensor, tags: Tensor) -> Tensor:
    """How widely each layer's affinity spreads the evidence: entropy in bits, mean over the batch, (L,) float64.

    The map of the present classes is propagated by A[l] alone, summed over classes, softmax over positions.

    Args:
        cam: (B, C, h, w), ReLU(class map).
        affinity: (L, B, P, P).
        tags: (B, C), 1 for the classes in the image.

    >>> cam, own, all_alike = torch.zeros(1, 1, 2, 2), torch.eye(4), torch.full((4, 4), 1 / 4)
    >>> cam[..., 0, 0] = 20  # one patch has the evidence, and keeps it, or shares it with the other three
    >>> layer_entropy(cam, torch.stack([own, all_alike])[:, None], torch.ones(1, 1)).round(decimals=3)
    tensor([0., 2.], dtype=torch.float64)
    """
    sources = (cam.flatten(2) * tags[:, :, None]).sum(dim=1).double()  # (B, P): propagation is linear, so sum first
    spread = torch.einsum('lbpq,bq->lbp', affinity.double(), sources)
    log_probability = spread.log_softmax(dim=-1)
    nats = -(log_probability.exp() * log_probability).sum(dim=-1)  # (L, B)
    return nats.mean(dim=1) / torch.log(torch.tensor(2.0))


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


class AReAMLoss(AttentionLoss):
    """loss_weight · mean_{l ≥ k} w_l · L_aff[l], with k = `layer_index`, the first deep layer.

    The same w weighs the shallow layers that make the label: affinity l < k counts (1 − w_l) / k.

    Several processes share a batch. Each divides by the pairs of all and multiplies by the number of processes: the
    mean over processes, as DDP takes of the gradients, is the loss of the whole batch.

    Args:
        layer_index: k; layers 0 … k−1 are shallow (the teacher), k … L−1 deep (supervised).
        loss_weight: 0.1 in the paper.
        weights: 'uniform' (w = 0 for shallow and 1 for deep layers; the better one in the paper), or 'entropy': the
            buffer `layer_weights`, min-max of the layers' entropies, which `LayerEntropyHook` measures.
        propagate_layers: layers whose mean affinity propagates the label CAM. None: the shallow ones, weighed as above.
            (): no propagation, for a transformer without pretrained weights.
        propagate_steps: how often it propagates.
        num_layers: L, the depth of the transformer; `CAMSegmentor` fills it in.

    Raises:
        ValueError: an unknown kind of weights, a layer index that leaves no shallow or no deep layer, or layers that
            the network does not have.
    """

    name = 'aream'

    def __init__(
        self,
        layer_index: int,
        loss_weight: float = 0.1,
        weights: str = 'uniform',
        propagate_layers: Sequence[int] | None = None,
        propagate_steps: int = 1,
        num_layers: int = 12,
    ) -> None:
        super().__init__()
        require('AReAMLoss.weights', weights, "'uniform' or 'entropy'", weights in ('uniform', 'entropy'))
        good = numbers([layer_index], 1, num_layers - 1, Integral)
        expected = f'a whole number in 1..{num_layers - 1} ({num_layers} layers)'
        require('AReAMLoss.layer_index', layer_index, expected, good)
        require_whole('AReAMLoss', propagate_steps=propagate_steps)
        require_numbers('AReAMLoss', loss_weight=loss_weight)
        good = propagate_layers is None or numbers(propagate_layers, 0, num_layers - 1, Integral)
        expected = f'a sequence of layers in 0..{num_layers - 1}, or None'
        require('AReAMLoss.propagate_layers', propagate_layers, expected, good)
        self.layer_index = layer_index
        self.loss_weight = loss_weight
        self.weights = weights
        self.propagate_layers = propagate_layers
        self.label_steps = propagate_steps
        self.logit_layers = range(layer_index, num_layers)
        self.layer_groups = {'shallow': range(layer_index), 'deep': self.logit_layers}
        uniform = (torch.arange(num_layers) >= layer_index).float()
        measured_later = torch.full((num_layers,), torch.nan)
        self.register_buffer(
            'layer_weights', measured_later if weights == 'entropy' else uniform, persistent=weights == 'entropy'
        )

    @property
    def measured(self) -> bool:
        """Whether there are layer weights: always for 'uniform', for 'entropy' once measured or loaded."""
        return self.weights == 'uniform' or not self.layer_weights.isnan().any()  # which waits for the device

    def weigh_layers(self, entropy: Tensor) -> None:
        """Set w to the min-max of the layers' entropies (L,).

        Raises:
            ValueError: all layers have the same entropy, or one is nan.
        """
        lowest, highest = entropy.aminmax()
        if not highest > lowest:
            raise ValueError(f'AReAMLoss: expected layers of different entropy, got {entropy.tolist()}')
        self.layer_weights.copy_((entropy - lowest) / (highest - lowest))

    @property
    def label_affinity(self) -> Mapping[int, float | Tensor]:
        """Layer → weight of the affinity that propagates the label CAM: (1 − w_l) / k for l < k, unless chosen."""
        if not self.measured:
            raise RuntimeError(
                "AReAMLoss(weights='entropy'): no layer entropies have been measured or loaded; add an "
                'aream_mm.LayerEntropyHook to custom_hooks'
            )
        if self.propagate_layers is not None:
            return mean_of(self.propagate_layers)
        weights = (1 - self.layer_weights) / self.layer_index
        return {layer: weights[layer] for layer in range(self.layer_index)}

    def forward(self, attended: Attended, masks: Tensor) -> Tensor:
        """(L − k, B, P, P) mean logits of the deep layers, (B, H, W) reliable masks → scalar.

        Every process of a group has to call it: the two counts of pairs are summed over all.
        """
        pairs = pair_labels(masks, attended.features.shape[-2:])
        counts = pair_counts(pairs)
        all_reduce(counts)
        share = affinity_loss(attended.mean_logits, pairs, counts)
        return get_world_size() * self.loss_weight * (self.layer_weights[self.layer_index :] * share).mean()
