"""Convert a ViT between the key names of timm, mmpretrain and mmseg, or take it out of a checkpoint of stage 1.

    python tools/converters/mmpretrain_vit.py MMPRETRAIN.pth TIMM.pth --to timm            # for AttentionViT.pretrained
    python tools/converters/mmpretrain_vit.py OURS.pth VIT.pth --to mmseg             # for stage 2's pretrained

The keys tell what the source is. Heads are left out. mmseg's ViT has no LayerScale: it is multiplied into the layer
before it. It has a single class token: C of them become their mean, and the tokens are then near those of stage 1; with
one they are equal. Give mmseg's backbone patch_bias=True and norm_cfg=dict(type='LN', eps=1e-6): without, mmseg drops
the bias in silence.
"""

import argparse
import math

import aream_mm.quiet  # noqa: F401

import torch
from torch import Tensor

from aream_mm.checkpoint import read_checkpoint

# timm: (mmpretrain, mmseg). {} is 'weight' or 'bias'.
WHOLE = {
    'cls_token': ('cls_token', 'cls_token'),
    'pos_embed': ('pos_embed', 'pos_embed'),
    'patch_embed.proj.{}': ('patch_embed.projection.{}', 'patch_embed.projection.{}'),
    'norm_pre.{}': ('pre_norm.{}', 'ln_pre.{}'),
    'norm.{}': ('ln1.{}', 'ln1.{}'),
}
LAYER = {
    'norm1.{}': ('ln1.{}', 'ln1.{}'),
    'attn.qkv.{}': ('attn.qkv.{}', 'attn.attn.in_proj_{}'),
    'attn.proj.{}': ('attn.proj.{}', 'attn.attn.out_proj.{}'),
    'ls1.gamma': ('attn.gamma1.weight', 'attn.gamma1.weight'),  # folded before mmseg sees it
    'norm2.{}': ('ln2.{}', 'ln2.{}'),
    'mlp.fc1.{}': ('ffn.layers.0.0.{}', 'ffn.layers.0.0.{}'),
    'mlp.fc2.{}': ('ffn.layers.1.{}', 'ffn.layers.1.{}'),
    'ls2.gamma': ('ffn.gamma2.weight', 'ffn.gamma2.weight'),
}
NEEDED = ('cls_token', 'pos_embed', 'blocks.0.mlp.fc1.weight', 'blocks.0.mlp.fc2.weight')
HEADS = ('head.', 'head_dist.', 'fc_norm.', 'ln2.')
PROGRAMS = ('mmpretrain', 'mmseg')


def key_names(program: str, num_layers: int) -> dict[str, str]:
    """timm's key → that of 'mmpretrain' or 'mmseg', of every weight that a ViT of so many layers may have."""
    column, names = PROGRAMS.index(program), {}
    for kind in ('weight', 'bias'):
        for key, others in WHOLE.items():
            names[key.format(kind)] = others[column].format(kind)
        for key, others in LAYER.items():
            for layer in range(num_layers):
                names[f'blocks.{layer}.{key.format(kind)}'] = f'layers.{layer}.{others[column].format(kind)}'
    return names


def renamed(weights: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    unknown = [key for key in weights if key not in names]
    if unknown:
        raise ValueError(f'expected the weights of a plain ViT with a class token, got {unknown[:5]}')
    return {names[key]: value for key, value in weights.items()}


def count_layers(weights: dict[str, Tensor]) -> int:
    return 1 + max(int(key.split('.')[1]) for key in weights if key.startswith(('blocks.', 'layers.')))


def to_timm(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a ViT in any of the key names, alone or in a larger model → timm's, its class token with a position.

    Raises:
        ValueError: there is no ViT, or one with weights that a plain ViT with a class token has not.
    """
    ends = ('patch_embed.proj.weight', 'patch_embed.projection.weight')
    prefixes = [key.removesuffix(end) for end in ends for key in weights if key.endswith(end)]
    if len(prefixes) != 1:
        raise ValueError(f'expected one ViT in the weights, got {len(prefixes)} among keys such as {list(weights)[:3]}')
    weights = {key.removeprefix(prefixes[0]): value for key, value in weights.items() if key.startswith(prefixes[0])}
    weights = {key: value for key, value in weights.items() if not key.startswith(HEADS)}
    ours = 'class_tokens' in weights  # AttentionViT, whose other prefix tokens hold their position embedding
    class_positions = weights.pop('class_pos_embed', None)
    if ours:
        if not weights['extra_tokens'].numel():
            del weights['extra_tokens']
        if weights['class_tokens'].numel():
            weights['cls_token'] = weights.pop('class_tokens').mean(dim=1, keepdim=True)
    elif 'cls_token' in weights and 'blocks.0.norm1.weight' not in weights:
        is_mmseg = 'layers.0.attn.attn.in_proj_weight' in weights
        names = key_names(PROGRAMS[is_mmseg], count_layers(weights))
        weights = renamed(weights, {other: key for key, other in names.items()})
    missing = [key for key in NEEDED if not isinstance(weights.get(key), Tensor)]
    if missing:
        raise ValueError(f'expected a ViT with a class token, missing: {missing}')
    inner, outer = (tuple(weights[f'blocks.0.mlp.fc{i}.weight'].shape) for i in (1, 2))
    if inner != outer[::-1]:
        raise ValueError(f'expected an MLP of two plain layers, got shapes {inner} and {outer}')
    positions = weights['pos_embed']
    if ours or math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]:  # of the patches alone
        first = torch.zeros_like(positions[:, :1]) if class_positions is None else class_positions.mean(1, keepdim=True)
        weights['pos_embed'] = torch.cat([first, positions], dim=1)
    return renamed(weights, {key: key for key in key_names('mmpretrain', count_layers(weights))})


def from_timm(weights: dict[str, Tensor], program: str) -> dict[str, Tensor]:
    """timm's weights → those of 'timm', 'mmpretrain' or 'mmseg'."""
    if program == 'timm':
        return weights
    if program == 'mmseg':
        weights = fold_layer_scale(weights)
    return renamed(weights, key_names(program, count_layers(weights)))


def fold_layer_scale(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """γ ⊙ (W x + b) = (γ W) x + γ b."""
    folded = {key: value for key, value in weights.items() if not key.endswith('.gamma')}
    for key, gamma in weights.items():
        if key.endswith('.gamma'):
            layer = key.replace('ls1.gamma', 'attn.proj').replace('ls2.gamma', 'mlp.fc2')
            folded[f'{layer}.weight'] = gamma[:, None] * folded[f'{layer}.weight']
            folded[f'{layer}.bias'] = gamma * folded[f'{layer}.bias']
    return folded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', help='weights in the names of timm, mmpretrain or mmseg, or a checkpoint of stage 1')
    parser.add_argument('dst', help='where to write the converted weights')
    parser.add_argument('--to', choices=('timm', *PROGRAMS), required=True, help='whose key names')
    args = parser.parse_args()
    checkpoint = read_checkpoint(args.src, map_location='cpu')
    weights = checkpoint.get('state_dict', checkpoint.get('model', checkpoint))
    try:
        converted = from_timm(to_timm(weights), args.to)
    except ValueError as error:
        parser.error(f'{args.src}: {error}')
    torch.save(dict(state_dict=converted, meta={}), args.dst)
    print(f'{args.dst}: {len(converted)} tensors, {count_layers(converted)} layers')


if __name__ == '__main__':
    main()
