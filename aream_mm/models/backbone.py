"""AttentionBackbone: what a network of stage 1 is to the segmentor, the losses and the hooks."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from mmengine.model import BaseModule
from torch import Tensor

from aream_mm.models.attention import Attended, AttentionMaps
from aream_mm.models.timm_networks import Normalize


class AttentionBackbone(BaseModule):
    """Base class of the networks of stage 1. One of your own inherits it, is registered, and is named by a config.

    It sets the five attributes and implements `run`:

    patch_size          pixels; the features and the patches lie on a grid of h × w = H / patch_size × W / patch_size
    num_layers          L, of attention; 0 for a network without any
    num_class_tokens    T, the first tokens of a sequence; 1, or the number of classes, or 0
    num_prefix_tokens   how many tokens stand before the patches, class tokens among them
    normalize           the `Normalize` of its images
    """

    patch_size: int
    num_layers: int
    num_class_tokens: int
    num_prefix_tokens: int
    normalize: Normalize

    def forward(
        self,
        images: Tensor,
        affinity: Mapping[int, float | Tensor] | None = None,
        logit_layers: Sequence[int] = (),
        token_layers: Sequence[int] = (),
        affinity_layers: Sequence[int] = (),
    ) -> Attended:
        """Tokens, features, and what is asked for of the affinities; a layer whose map nobody reads runs fused.

        Args:
            images: (B, 3, H, W) RGB in 0..1, H and W multiples of the patch size.
            affinity: layer → its weight in the returned patch affinity, a number or a tensor of shape () or (G,).
                With a mapping, even an empty one, the class affinity is returned too.
            logit_layers: layers whose mean logits Z are returned, in rising order.
            token_layers: layers whose patch tokens are returned, in rising order.
            affinity_layers: layers whose affinity is returned with its gradient, in rising order.

        Raises:
            ValueError: image sides that are no multiples of the patch size, unknown layers, or features off the grid.
        """
        maps = AttentionMaps(self, affinity, logit_layers, token_layers, affinity_layers)
        grid = tuple(side // self.patch_size for side in images.shape[-2:])
        if tuple(cells * self.patch_size for cells in grid) != tuple(images.shape[-2:]):
            height, width = images.shape[-2:]
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

    @property
    def zero_colour(self) -> Tensor:
        """RGB in 0..1, (3,), that its normalisation makes zero: what images are padded with."""
        return self.normalize.mean.flatten()

    @abstractmethod
    def run(self, images: Tensor, maps: AttentionMaps) -> Attended:
        """Run the network on images (B, 3, H, W).

        Layer `l` is run by `attention.run_layer` with `maps.asked(l)`, or gives those flags to `attention.attend`, and
        hands its tokens (B, N, D) and maps to `maps.add`; `maps.attended` makes the result of all.
        """
