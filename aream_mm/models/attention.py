"""Networks of stage 1 and their attention, which shows its maps: A and Z of arXiv 2305.03112, averaged over heads."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LARGE = 6000  # tokens, above which an affinity that only propagates CAMs is not held: docs/speed.md
MOST = 2**23  # weights that are held of it


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is: losses, maps and CAMs where a network computes in less."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Attended(NamedTuple):
    """What an attention-exposing network returns. T class tokens, P = h·w patches, L' layers asked for.

    class_tokens    (B, T, D)         of the last layer, before any final norm; None if the network has none
    features        (B, D', h, w)     what the class map is read from
    class_affinity  (B, T, P)         mean over all layers of A[l][class → patch]; None if not asked for, or if T < 2
    patch_affinity  (B, P, P)         Σ_l weight[l] · A[l][patch → patch]; (G, B, P, P) for weights of shape (G,);
                                      for other weights, of large images, an `AffinityInRows`
    mean_logits     (L', B, P, P)     Z[l], the mean over heads of the pre-softmax logits, patch block
    layer_tokens    (L', B, P, D)     patch tokens after each layer
    layer_affinity  (L', B, P, P)     A[l][patch → patch] of each layer, with gradient

    The class and the patch affinity carry no gradient: they make CAMs. AReAM learns through the mean logits.
    """

    class_tokens: Tensor | None
    features: Tensor
    class_affinity: Tensor | None = None
    patch_affinity: 'Tensor | AffinityInRows | None' = None
    mean_logits: Tensor | None = None
    layer_tokens: Tensor | None = None
    layer_affinity: Tensor | None = None


class AffinityInRows(NamedTuple):
    """Σ_l weight[l] · A[l][patch → patch] of large images, which is never whole: it is made of what is far smaller.

    first_patch   the first token that is a patch
    layers        queries and keys (B, H, N, d) of each layer, and its weight
    """

    first_patch: int
    layers: list[tuple[Tensor, Tensor, float | Tensor]]

    def weigh(self, sources: Tensor) -> Tensor:
        """Each patch's sum of the sources (B, C, P) by its row: (B, C, P). No more than `MOST` weights are held."""
        sources, first = at_least_float32(sources), self.first_patch
        total = torch.zeros_like(sources)  # filled in place: small results kept would cut up the memory between blocks
        for q, k, weight in self.layers:
            rows = max(MOST // (len(k) * k.shape[2]), 1)
            blocks = zip(q[:, :, first:].split(rows, dim=2), total.split(rows, dim=2), strict=True)
            for queries, received in blocks:
                for each in head_weights(queries, k):
                    received += sources.to(each.dtype) @ each[..., first:].transpose(1, 2) * (weight / q.shape[1])
        return total


class AttentionBackbone(BaseModule):
    """Base class of the networks of stage 1. One of your own inherits it, is registered, and is named by a config.

    It sets the five attributes and implements `run`:

    patch_size          pixels; the features and the patches lie on a grid of h × w = H / patch_size × W / patch_size
    num_layers          L, of attention; 0 for a network without any
    num_class_tokens    T, the first tokens of a sequence; 1, or the number of classes, or 0
    num_prefix_tokens   how many tokens stand before the patches, class tokens among them
    normalize           the `timm_networks.Normalize` of its images, which are padded with its mean
    """

    patch_size: int
    num_layers: int
    num_class_tokens: int
    num_prefix_tokens: int
    normalize: nn.Module

    def forward(self, images: Tensor, *asked, **asked_by_name) -> Attended:
        """Tokens, features, and what is asked for of the affinities; a layer whose map nobody reads runs fused.

        Args:
            images: (B, 3, H, W) RGB in 0..1, H and W multiples of the patch size.
            asked, asked_by_name: `affinity` and the layers of each map, the arguments of `AttentionMaps`.

        Raises:
            ValueError: image sides that are no multiples of the patch size, unknown layers, or features off the grid.
        """
        maps = AttentionMaps(self, *asked, **asked_by_name)
        height, width = images.shape[-2:]
        grid = (height // self.patch_size, width // self.patch_size)
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f'{type(self).__name__}: expected image sides that are multiples of the patch size {self.patch_size}, '
                f'got {height}×{width}'
            )
        attended = self.run(images, maps)
        if tuple(attended.features.shape[-2:]) != grid:
            raise ValueError(
                f'{type(self).__name__}: expected features on a grid of {grid}, got {tuple(attended.features.shape)}'
            )
        return attended

    @abstractmethod
    def run(self, images: Tensor, maps: 'AttentionMaps') -> Attended:
        """Run the network on images (B, 3, H, W).

        Layer `l` is run by `run_layer` with `maps.asked(l)`, or gives those flags to `attend`, and hands its tokens
        (B, N, D) and maps to `maps.add`; `maps.attended` makes the result of all.
        """


def mean_of(layers: Sequence[int]) -> dict[int, float]:
    """Layer → weight in the mean of the layers' affinities."""
    return {layer: 1 / len(layers) for layer in layers}


@dataclass
class AttentionMaps:
    """What a forward pass of a network is asked for, gathered over its layers.

    Args:
        network: whose layers are run.
        affinity: layer → its weight in the returned patch affinity, a number or a tensor of shape () or (G,).
            With a mapping, even an empty one, the class affinity is returned too.
        logit_layers: layers whose mean logits Z are returned, in rising order.
        token_layers: layers whose patch tokens are returned, in rising order.
        affinity_layers: layers whose affinity is returned with its gradient, in rising order.

    Raises:
        ValueError: layers that the network does not have.
    """

    network: AttentionBackbone
    affinity: Mapping[int, float | Tensor] | None = None
    logit_layers: Sequence[int] = ()
    token_layers: Sequence[int] = ()
    affinity_layers: Sequence[int] = ()

    def __post_init__(self) -> None:
        network, layers = self.network, (*(self.affinity or ()), *self.logit_layers, *self.token_layers)
        outside = [layer for layer in (*layers, *self.affinity_layers) if not 0 <= layer < network.num_layers]
        if outside:
            there = f'layers in 0..{network.num_layers - 1}' if network.num_layers else 'no layers, it has no attention'
            raise ValueError(f'{type(network).__name__}: expected {there}, got {outside}')
        self.class_affinity = self.patch_affinity = None
        self.mean_logits, self.layer_tokens, self.layer_affinity = [], [], []

    def asked(self, layer: int) -> dict[str, bool]:
        """Which maps of this layer are read: the last arguments of `attend`."""
        weight = (self.affinity or {}).get(layer)
        return dict(
            every_row=weight is not None,
            class_rows=self.affinity is not None and self.network.num_class_tokens > 1,
            mean_logits=layer in self.logit_layers,
            with_gradient=layer in self.affinity_layers,
            in_rows=weight is not None and not getattr(weight, 'ndim', 0),
        )

    def add(self, layer: int, x: Tensor, maps: dict[str, Tensor]) -> None:
        """The tokens (B, N, D) after a layer and the maps that were asked for; the maps are not to be used again."""
        if 'class' in maps:
            term = maps['class'] / self.network.num_layers
            self.class_affinity = term if self.class_affinity is None else self.class_affinity + term
        if 'patch' in maps:
            weight = self.affinity[layer]
            weight = weight[..., None, None, None] if isinstance(weight, Tensor) else weight
            term = weight * maps['patch']
            self.patch_affinity = term if self.patch_affinity is None else self.patch_affinity.add_(term)
        if 'rows' in maps:
            self.patch_affinity = self.patch_affinity or AffinityInRows(self.network.num_prefix_tokens, [])
            self.patch_affinity.layers.append((*maps['rows'], self.affinity[layer]))
        if 'logits' in maps:
            self.mean_logits.append(maps['logits'])
        if 'learnt' in maps:
            self.layer_affinity.append(maps['learnt'])
        if layer in self.token_layers:
            self.layer_tokens.append(x[:, self.network.num_prefix_tokens :])

    def attended(self, x: Tensor, features: Tensor) -> Attended:
        """The tokens (B, N, D) after the last layer and the features (B, D', h, w), with what was gathered."""
        each_layer = (self.mean_logits, self.layer_tokens, self.layer_affinity)
        return Attended(
            x[:, : self.network.num_class_tokens] if self.network.num_class_tokens else None,
            features,
            self.class_affinity,
            self.patch_affinity,
            *(torch.stack(maps) if maps else None for maps in each_layer),
        )


class AttentionRecorder(TorchFunctionMode):
    """Within it, torch's attention in a layer of another library's is `attend`, whose maps are `found`."""

    def __init__(self, **arguments: int | bool) -> None:
        super().__init__()
        self.arguments, self.found = arguments, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not F.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        q, k, v, *rest = args
        options = {name: value for name, value in (kwargs or {}).items() if value is not None and value is not False}
        dropout = options.pop('dropout_p', 0.0)
        if rest or options:
            raise ValueError(f'attention: expected no mask, scale or causality, got {[*options, *rest]}')
        out, maps = attend(q, k, v, **self.arguments, dropout=dropout)
        self.found.append(maps)
        return out


def run_layer(network: nn.Module, layer: nn.Module, x: Tensor, asked: dict[str, bool], **arguments: Tensor) -> tuple:
    """A layer of another library's, that calls torch's attention once: its tokens (B, N, D), and the maps asked for."""
    if not any(asked.values()):
        return layer(x, **arguments), {}
    prefix = dict(num_class_tokens=network.num_class_tokens, first_patch=network.num_prefix_tokens)
    with AttentionRecorder(**prefix, **asked) as recorder:
        x = layer(x, **arguments)
    if len(recorder.found) != 1:
        times = f'called {len(recorder.found)} times'
        raise ValueError(f"{type(layer).__name__}: expected torch's attention to be called once, got it {times}")
    return x, recorder.found[0]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    num_class_tokens: int,
    first_patch: int,
    every_row: bool,
    class_rows: bool,
    mean_logits: bool,
    with_gradient: bool = False,
    in_rows: bool = False,
    dropout: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Softmax attention of q, k, v (B, H, N, d): its output (B, H, N, d), and the maps asked for, means over the heads.

    'patch' (B, P, P) with `every_row`, 'class' (B, T, P) with `class_rows`, 'logits' (B, P, P) with `mean_logits`,
    'learnt' (B, P, P) with `with_gradient`, which is 'patch' with the graph that made it. With `in_rows`, large images
    have 'rows', q and k, instead of 'patch'. Class tokens come first; patches start at token `first_patch`.
    """
    heads, scale, maps, out = q.shape[1], q.shape[-1] ** -0.5, {}, None
    if with_gradient:
        logits = at_least_float32(q * scale @ k.transpose(2, 3))  # (B, H, N, N), which the backward pass needs
        maps['learnt'] = logits.softmax(dim=-1).mean(dim=1)[:, first_patch:, first_patch:]
    if every_row and in_rows and q.shape[2] > LARGE:
        maps['rows'], every_row = (q.contiguous(), k.contiguous()), False  # copies, without the values beside them
    if every_row:
        # Without a gradient the weights of each head, which are there anyway, make its output too.
        trained = any(tensor.requires_grad for tensor in (q, k, v))
        out = None if trained or dropout else torch.empty_like(v)
        mean = None
        for head, weights in enumerate(head_weights(q, k)):
            if out is not None:
                out[:, head] = weights.to(v.dtype) @ v[:, head]
            mean = weights.div_(heads) if mean is None else mean.add_(weights, alpha=1 / heads)
        maps['patch'] = mean[:, first_patch:, first_patch:]  # (B, P, P)
        if class_rows:
            maps['class'] = mean[:, :num_class_tokens, first_patch:]  # (B, T, P)
    elif class_rows:
        maps['class'] = sum(head_weights(q[:, :, :num_class_tokens], k))[..., first_patch:] / heads
    if out is None:
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    if mean_logits:
        # Z = Q Kᵀ / (H √d) with the concatenated heads: one product, no (B, H, P, P) tensor.
        queries, keys = (t[:, :, first_patch:].transpose(1, 2).flatten(2) for t in (q, k))  # (B, P, H·d)
        maps['logits'] = (queries * (scale / heads)) @ keys.transpose(1, 2)  # (B, P, P)
    return out, maps


@torch.no_grad()
def head_weights(q: Tensor, k: Tensor) -> Iterator[Tensor]:
    """softmax(q kᵀ / √d) of one head after another, (B, N', N), so that no (B, H, N', N) tensor is held.

    q (B, H, N', d), k (B, H, N, d); float32 or wider.
    """
    for queries, keys in zip(q.unbind(1), k.unbind(1), strict=True):
        logits = at_least_float32(queries * q.shape[-1] ** -0.5 @ keys.transpose(1, 2))
        yield torch.softmax(logits, dim=-1, out=logits)  # in place, which on a CPU takes half the time
