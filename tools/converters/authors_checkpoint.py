"""Convert a checkpoint of the AReAM authors' MCTformer program (or of MCTformer-V2) to `CAMSegmentor` + `AttentionViT`.

python tools/converters/authors_checkpoint.py SRC.pth DST.pth
"""

import argparse

import aream_mm.quiet  # noqa: F401

import torch
from torch import Tensor

from aream_mm.checkpoint import read_checkpoint

NEEDED = {'cls_token': 3, 'pos_embed': 3, 'head.weight': 4, 'head.bias': 1}  # axes of the tensors


def convert(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their keys → ours. Their final norm is left out: nothing reads it.

    Raises:
        ValueError: the weights lack the class tokens or the convolutional head of that program.
    """
    missing = [key for key, axes in NEEDED.items() if getattr(weights.get(key), 'ndim', None) != axes]
    if missing or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(
            f'expected a MCTformer-V2 checkpoint with class tokens and a convolutional head; missing: {missing}, '
            f'got keys such as {list(weights)[:5]}'
        )
    num_classes = weights['cls_token'].shape[1]
    positions = weights['pos_embed']
    converted = {
        'backbone.class_tokens': weights['cls_token'],
        'backbone.class_pos_embed': positions[:, :num_classes],
        'backbone.extra_tokens': positions[:, :0],
        'backbone.pos_embed': positions[:, num_classes:],
        'head.class_map.weight': weights['head.weight'],
        'head.class_map.bias': weights['head.bias'],
    }
    for key, value in weights.items():
        if key.startswith(('patch_embed.', 'blocks.')):
            converted[f'backbone.{key}'] = value
    return {key: value.clone() for key, value in converted.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', help="checkpoint of the authors' program")
    parser.add_argument('dst', help='where to write the converted checkpoint')
    args = parser.parse_args()
    checkpoint = read_checkpoint(args.src, map_location='cpu')
    try:
        converted = convert(checkpoint.get('model', checkpoint))
    except (AttributeError, RuntimeError, ValueError) as error:  # no weights, or of shapes that do not go together
        raise ValueError(f'{args.src}: {error}') from error
    torch.save(dict(state_dict=converted, meta={}), args.dst)
    print(f'{args.dst}: {len(converted)} tensors, {converted["head.class_map.bias"].numel()} classes')


if __name__ == '__main__':
    main()
