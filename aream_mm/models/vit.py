"""AttentionViT: a plain timm vision transformer that returns its tokens and affinities."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from timm.layers import Attention, AttentionRope, PatchEmbed
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aream_mm.models.attention import Attended, AttentionBackbone, AttentionMaps, run_layer
from aream_mm.models.timm_networks import Normalize, create_timm_model, levels_on_grid
from aream_mm.registry import MODELS

PLAIN_VIT = 'a plain timm VisionTransformer or Eva (all tokens attend to all, no windows, no biases of position)'
LAYERS = (Block, ResPostBlock, EvaBlock, EvaBlockPostNorm)
ATTENTION = (Attention, EvaAttention, AttentionRope)


class CNNStem(BaseModule):
    """The levels of a CNN on the token grid, concatenated and projected: (B, h, w, D).

    The 1×1 projection starts at zero: the first output is the pretrained transformer's. The CNN learns from step 2 on.
    """

    def __init__(self, cnn: Mapping, embed_dim: int) -> None:
        super().__init__()
        self.cnn = MODELS.build(cnn)
        self.projection = nn.Conv2d(sum(self.cnn.out_channels), embed_dim, 1)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.projection(levels_on_grid(self.cnn(images), grid)).permute(0, 2, 3, 1)


@MODELS.register_module()
class AttentionViT(AttentionBackbone):
    """A plain timm ViT with one, C or no class tokens. It returns tokens and affinities, `Attended`.

    C class tokens start as copies of the pretrained one, as do their positions (MCTformer-V2). `class_tokens` and
    `class_pos_embed` are two parameters, for only the first decays in the authors' program. Register and distillation
    tokens take part in attention and are not returned. The heads read the residual stream: there is no final norm.

    Args:
        name: timm's model name, such as 'deit_small_patch16_224'.
        num_class_tokens: 1, or the number of classes C. 0 for a model that has none, such as SigLIP's: then there is
            no class affinity, and the class map alone is trained.
        pretrained: False, True (timm's weights), or a file in timm's key names. `init_weights` reads it at the start
            of training.
        img_size: side in pixels, or (height, width), of the position embedding. Other input sizes resample it in every
            forward pass. Default: the model's own.
        patch_size: patch side in pixels. Default: the model's own. Loading resamples the patch embedding.
        drop_path_rate: stochastic depth of the last layer, rising linearly from 0.
        frozen_layers: how many of the first layers are frozen, in evaluation mode, and with them the embeddings. 0
            freezes nothing. Several class tokens always train, for copies of one would stay equal.
        with_cp: gradient checkpointing: the backward pass computes each layer again.
        mean, std: RGB statistics in 0..1. Default: those of the pretrained weights.
        stem: config of a `TimmCNN` whose features `CNNStem` adds to the patch embedding. Its own settings say whether
            it is frozen; its projection always trains. Its learning rate: paramwise_cfg.custom_keys 'backbone.stem'.
        architecture: further arguments of timm's `VisionTransformer` or `Eva`, such as dict(depth=6, embed_dim=192).

    Raises:
        TypeError: the timm model is no plain ViT.
        ValueError: class tokens that do not fit the timm model, other patches than plain ones, or fewer layers than
            `frozen_layers`; a `pretrained` file without the model's weights.
        OSError: no `pretrained` file, or no network for timm's weights.
    """

    def __init__(
        self,
        name: str,
        num_class_tokens: int = 1,
        pretrained: bool | str = False,
        img_size: int | Sequence[int] | None = None,
        patch_size: int | None = None,
        drop_path_rate: float = 0.0,
        frozen_layers: int = 0,
        with_cp: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        stem: Mapping | None = None,
        architecture: Mapping | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.num_class_tokens = num_class_tokens
        self.pretrained = pretrained
        self.frozen_layers = frozen_layers
        self.with_cp = with_cp
        self.arguments = dict(num_classes=0, dynamic_img_size=True, drop_path_rate=drop_path_rate)
        sizes = dict(img_size=img_size, patch_size=patch_size)
        self.arguments.update(architecture or {}, **{key: size for key, size in sizes.items() if size is not None})
        try:
            vit = create_timm_model(name, pretrained=False, **self.arguments)
        except TypeError as error:  # timm's other families do not take the arguments of a plain ViT
            raise TypeError(f'AttentionViT: expected {PLAIN_VIT}, got {name!r}: {error}') from error
        check_plain_vit(name, vit)
        own = vit.cls_token is not None
        if num_class_tokens < 1 if own else num_class_tokens != 0:
            expected = 'at least 1 for a model with a class token' if own else '0 for one without any'
            raise ValueError(f'AttentionViT: expected num_class_tokens of {expected}, got {num_class_tokens}, {name!r}')
        if not 0 <= frozen_layers <= len(vit.blocks):
            raise ValueError(f'AttentionViT: expected frozen_layers in 0..{len(vit.blocks)}, got {frozen_layers}')
        self.normalize = Normalize(mean or vit.pretrained_cfg['mean'], std or vit.pretrained_cfg['std'])
        self.patch_embed, self.norm_pre, self.blocks = vit.patch_embed, vit.norm_pre, vit.blocks
        self.grid_size = vit.patch_embed.grid_size
        self.patch_size = vit.patch_embed.patch_size[0]
        self.num_layers = len(vit.blocks)
        self.stem = stem and CNNStem(stem, vit.embed_dim)
        self.rope = getattr(vit, 'rope', None)  # of an Eva whose positions rotate the queries and keys of the patches
        self.rope_mixed = getattr(vit, 'rope_mixed', False)  # those of each layer are other ones
        self.pos_embed = self.class_pos_embed = None  # of a model that gives the patches or its prefix tokens none
        for key, value in self._embeddings(vit).items():
            setattr(self, key, nn.Parameter(value))
        self.num_prefix_tokens = num_class_tokens + self.extra_tokens.shape[1]
        for block in self.blocks:
            block.attn.num_prefix_tokens = self.num_prefix_tokens  # which have no position to rotate
            block.attn.fused_attn = True
        for part in self._frozen_parts():
            part.requires_grad_(False)

    def _embeddings(self, vit: VisionTransformer | Eva) -> dict[str, Tensor]:
        """Class, extra and position embeddings; those of the other prefix tokens are folded into the tokens."""
        # timm orders the prefix class, distillation, register.
        tokens = (vit.cls_token, getattr(vit, 'dist_token', None), vit.reg_token)
        prefix = [torch.zeros(1, 0, vit.embed_dim), *(token.detach() for token in tokens if token is not None)]
        prefix, own = torch.cat(prefix, dim=1), int(vit.cls_token is not None)  # (1, own + R, D)
        positions = prefix[:, :0] if vit.pos_embed is None else vit.pos_embed.detach()
        embedded = 0 if vit.pos_embed is None or vit.no_embed_class else prefix.shape[1]
        class_positions, extra_positions, positions = positions.tensor_split((min(own, embedded), embedded), dim=1)
        embeddings = dict(
            class_tokens=prefix[:, :own].repeat(1, self.num_class_tokens, 1),  # (1, T, D)
            extra_tokens=prefix[:, own:] + extra_positions if embedded else prefix[:, own:].clone(),  # (1, R, D)
            pos_embed=positions.clone(),  # (1, P, D)
            class_pos_embed=class_positions.repeat(1, self.num_class_tokens, 1),  # (1, T, D)
        )
        return {key: value for key, value in embeddings.items() if value.numel() or key.endswith('tokens')}

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *options) -> None:
        # mmengine only warns of a mismatch and goes on with an untrained position embedding.
        positions, own = state_dict.get(f'{prefix}pos_embed'), 0 if self.pos_embed is None else self.pos_embed.shape[1]
        if positions is not None and positions.shape[1] != own:
            raise ValueError(
                f'AttentionViT: the config has a position embedding of {own} patches, the checkpoint one of '
                f'{positions.shape[1]}; set img_size as it was in training, inputs may have any size'
            )
        super()._load_from_state_dict(state_dict, prefix, *options)

    def init_weights(self) -> None:
        """Load `pretrained`, and that of the stem; called by mmengine's Runner when training starts."""
        if self.stem is not None:
            self.stem.init_weights()
        if self.pretrained and not self.is_init:
            vit, own = create_timm_model(self.name, self.pretrained, **self.arguments), self.state_dict()
            weights = {key: value for key, value in vit.state_dict().items() if key in own}
            self.load_state_dict(own | weights | self._embeddings(vit))
        self.is_init = True

    def _frozen_parts(self) -> list[nn.Module | nn.Parameter]:
        embeddings = [self.patch_embed, self.norm_pre, self.extra_tokens]
        embeddings += [part for part in (self.pos_embed, self.class_pos_embed, self.rope) if part is not None]
        if self.num_class_tokens <= 1:
            embeddings.append(self.class_tokens)
        return [*embeddings, *self.blocks[: self.frozen_layers]] if self.frozen_layers else []

    def train(self, mode: bool = True) -> 'AttentionViT':
        super().train(mode)
        for part in self._frozen_parts():
            if isinstance(part, nn.Module):
                part.eval()
        return self

    def _position_embedding(self, height: int, width: int) -> Tensor:
        """(1, h, w, D), bicubic where the grid differs from the model's own."""
        grid = self.pos_embed.unflatten(1, self.grid_size)
        if (height, width) == tuple(self.grid_size):
            return grid
        # DINO's convention, which MCTformer follows: a tenth of a patch is added to the size before the scale is taken.
        scale = [(new + 0.1) / old for new, old in zip((height, width), self.grid_size, strict=True)]
        grid = F.interpolate(grid.permute(0, 3, 1, 2), scale_factor=scale, mode='bicubic', align_corners=False)
        return grid.permute(0, 2, 3, 1)

    def run(self, images: Tensor, maps: AttentionMaps) -> Attended:
        patches = self.patch_embed(self.normalize(images))  # (B, h, w, D)
        batch, h, w, _ = patches.shape
        if self.pos_embed is not None:
            patches = patches + self._position_embedding(h, w)
        if self.stem is not None:
            patches = patches + self.stem(images, (h, w))
        class_tokens = self.class_tokens if self.class_pos_embed is None else self.class_tokens + self.class_pos_embed
        prefix = torch.cat([class_tokens, self.extra_tokens], dim=1).expand(batch, -1, -1)
        x = self.norm_pre(torch.cat([prefix, patches.flatten(1, 2)], dim=1))  # (B, T + R + P, D)

        rotation = None if self.rope is None else self.rope.get_embed(shape=(h, w))  # (P, 2d), or of each layer
        for layer, block in enumerate(self.blocks):
            rope = {} if self.rope is None else dict(rope=rotation[layer] if self.rope_mixed else rotation)
            arguments = (self, block, x, maps.asked(layer))
            if self.with_cp and x.requires_grad:
                x, attention = checkpoint(run_layer, *arguments, use_reentrant=False, **rope)
            else:
                x, attention = run_layer(*arguments, **rope)
            maps.add(layer, x, attention)
        return maps.attended(x, x[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, (h, w)))


def is_layer(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """The `auto_wrap_policy` of FSDP: it gathers the weights of one layer of a ViT at a time."""
    return recurse or isinstance(module, LAYERS)


def check_plain_vit(name: str, vit: nn.Module) -> None:
    """Refuse, by name, a timm model whose attention or patches are not those of a plain ViT."""
    if not isinstance(vit, VisionTransformer | Eva):
        raise TypeError(f'AttentionViT: expected {PLAIN_VIT}, got {type(vit).__name__} for {name!r}')
    for block in vit.blocks:
        attention = type(getattr(block, 'attn', None))
        if type(block) not in LAYERS or attention not in ATTENTION:
            raise TypeError(
                f'AttentionViT: expected blocks of plain softmax attention, got {type(block).__name__} with '
                f'{attention.__name__} for {name!r}'
            )
    patch_size = vit.patch_embed.patch_size
    if type(vit.patch_embed) is not PatchEmbed or patch_size[0] != patch_size[1]:
        raise ValueError(
            f'AttentionViT: expected square patches of the image, got {type(vit.patch_embed).__name__} with '
            f'{patch_size} for {name!r}; for a CNN in front of a ViT there is the option `stem`'
        )
    if vit.pos_drop.p > 0 or not isinstance(vit.patch_drop, nn.Identity | None):
        raise ValueError(f'AttentionViT: expected no dropout of tokens in {name!r}')
