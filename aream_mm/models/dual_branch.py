"""DualBranch: a timm CNN says what is where roughly, a timm ViT says which places belong together.

`CNNBackbone` is the CNN alone, for the plain CAM.
"""

from torch import Tensor

from aream_mm.models.attention import Attended, AttentionBackbone, AttentionMaps
from aream_mm.models.timm_networks import Normalize, levels_on_grid
from aream_mm.registry import MODELS


@MODELS.register_module()
class DualBranch(AttentionBackbone):
    """Class map from a CNN, affinity and class tokens from a ViT; each has weights, statistics and freezing of its own.

    `features` (B, Σ D_i, h, w) are the CNN's levels on the ViT's token grid, so any patch size goes with any CNN. There
    is no class affinity: the patch affinity alone propagates the CNN's map. Learning rates of the branches:
    optim_wrapper.paramwise_cfg.custom_keys 'backbone.cnn' and 'backbone.vit'.

    Args:
        cnn: config of a `TimmCNN`.
        vit: config of an `AttentionViT`.
    """

    def __init__(self, cnn: dict, vit: dict) -> None:
        super().__init__()
        self.cnn = MODELS.build(cnn)
        self.vit = MODELS.build(vit)
        self.num_layers, self.patch_size = self.vit.num_layers, self.vit.patch_size
        self.num_class_tokens, self.num_prefix_tokens = self.vit.num_class_tokens, self.vit.num_prefix_tokens

    @property
    def normalize(self) -> Normalize:
        """The ViT's; the CNN has its own."""
        return self.vit.normalize

    def run(self, images: Tensor, maps: AttentionMaps) -> Attended:
        attended = self.vit.run(images, maps)
        grid = attended.features.shape[-2:]
        return attended._replace(features=levels_on_grid(self.cnn(images), grid), class_affinity=None)


@MODELS.register_module()
class CNNBackbone(AttentionBackbone):
    """A CNN alone, for the plain CAM: features (B, Σ D_i, h, w) at the size of the finest level, nothing that attends.

    Args:
        cnn: config of a `TimmCNN`.
    """

    num_layers = num_class_tokens = num_prefix_tokens = 0

    def __init__(self, cnn: dict) -> None:
        super().__init__()
        self.cnn = MODELS.build(cnn)
        self.patch_size = min(self.cnn.cnn.feature_info.reduction())  # stride of the finest level

    @property
    def normalize(self) -> Normalize:
        return self.cnn.normalize

    def run(self, images: Tensor, maps: AttentionMaps) -> Attended:
        grid = [side // self.patch_size for side in images.shape[-2:]]
        return Attended(None, levels_on_grid(self.cnn(images), grid))
