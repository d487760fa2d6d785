"""Stage 2 as one ONNX file that takes photographs of any size: `pip install 'aream_mm[export]'`.

python tools/export_onnx.py configs/seg/own_photographs.py work_dirs/own_photographs_seg/iter_1000.pth out.onnx

Its input `photograph` is uint8 (H, W, 3), RGB as it is shown; its outputs are `mask`, ids as uint8 (H, W), and
`probabilities`, float32 (C, H, W). Resizing and normalisation are in it; names and colours of the classes are JSON in
its metadata, `classes` and `palette`, and so is `value_range` where images of more than 8 bits were trained on, whose
values have to be scaled like that first. Sliding windows become one pass over the whole photograph. The file is run by
onnxruntime on a photograph at once; without --photograph that is the first one of the config's data set.
"""

import argparse
import json
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import aream_mm.quiet  # noqa: F401

import torch
import torch.nn.functional as F
from arguments import checkpoint_file, config_file
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS
from mmseg.models.segmentors import EncoderDecoder
from options import OptionAction, load_config
from predict import data_of, load_model
from torch import Tensor, nn

from aream_mm.datasets import ToEightBits
from aream_mm.datasets.images import read_image
from aream_mm.files import write_atomically

OPSET, MOST_DIFFERENCE, MOST_PIXELS = 18, 1e-3, 0.01
KEYS = ('classes', 'palette')
LOADS = (
    'LoadImageFromFile',
    'ToEightBits',
    'LoadAnnotations',
    'LoadAnnotationsIfAny',
    'PackTagInputs',
    'PackSegInputs',
)
# What mmcv's Resize(keep_ratio=True) does, and what mmseg's postprocess_result does.
BEFORE = """<ir_version: {ir}, opset_import: ["" : {opset}]>
before (uint8[height, width, 3] photograph) => (float[1, 3, h, w] resized, int64[2] shown) {{
  two = Constant <value_ints = [2]> ()   zero = Constant <value_ints = [0]> ()
  front = Constant <value_ints = [1, 3]> ()
  bounds = Constant <value = double[2] {{ {long}, {short} }}> ()   half = Constant <value = double {{0.5}}> ()
  shape = Shape (photograph)   shown = Slice (shape, zero, two)   sides = Cast <to = 11> (shown)
  longest = ReduceMax (sides)   shortest = ReduceMin (sides)   extremes = Concat <axis = 0> (longest, shortest)
  ratios = Div (bounds, extremes)   factor = ReduceMin (ratios)
  scaled = Mul (sides, factor)   rounded = Add (scaled, half)   size = Cast <to = 7> (rounded)
  sizes = Concat <axis = 0> (front, size)   planes = Transpose <perm = [2, 0, 1]> (photograph)
  batch = Unsqueeze (planes, zero)   values = Cast <to = 1> (batch)
  fine = Resize <mode = "linear"> (values, , , sizes)   resized = Round (fine)
}}"""
AFTER = """<ir_version: {ir}, opset_import: ["" : {opset}]>
after (float[1, {C}, h, w] logits, int64[2] shown) =>
(uint8[height, width] mask, float[{C}, height, width] probabilities) {{
  start = Constant <value_ints = [1, {C}]> ()   first = Constant <value_ints = [0]> ()
  whole = Concat <axis = 0> (start, shown)
  large = Resize <mode = "linear", coordinate_transformation_mode = "{corners}"> (logits, , , whole)
  scores = Squeeze (large, first)   probabilities = Softmax <axis = 0> (scores)
  ids = ArgMax <axis = 0, keepdims = 0> (scores)   mask = Cast <to = 2> (ids)
}}"""


class Pool(nn.Module):
    """nn.AdaptiveAvgPool2d of a size that is known when it runs, which exporters take for a constant."""

    def __init__(self, output_size: int | tuple[int, int]) -> None:
        super().__init__()
        self.sizes = (output_size,) * 2 if isinstance(output_size, int) else output_size

    def forward(self, x: Tensor) -> Tensor:
        weights = []
        for size, side in zip(self.sizes, x.shape[2:], strict=True):
            number, position = torch.arange(size)[:, None], torch.arange(side)[None]
            inside = (position >= number * side // size) & (position < ((number + 1) * side + size - 1) // size)
            weights.append(inside.float() / inside.sum(dim=1, keepdim=True))
        return weights[0] @ x @ weights[1].T


class Network(nn.Module):
    """RGB (1, 3, h, w) in 0..255 → logits (1, C, h, w)."""

    def __init__(self, model: EncoderDecoder) -> None:
        super().__init__()
        self.model, preprocessor = model, model.data_preprocessor
        older = hasattr(preprocessor, 'channel_conversion')  # mmseg 1.2
        self.flip = not getattr(preprocessor, 'channel_conversion' if older else '_channel_conversion')
        normal = preprocessor._enable_normalize
        self.mean, self.std = (preprocessor.mean, preprocessor.std) if normal else (torch.zeros(1), torch.ones(1))
        self.divisor = (preprocessor.test_cfg or {}).get('size_divisor', 1)

    def forward(self, resized: Tensor) -> Tensor:
        images, (height, width) = resized.flip(1) if self.flip else resized, resized.shape[2:]
        images = F.pad((images - self.mean) / self.std, (0, -width % self.divisor, 0, -height % self.divisor))
        return self.model.encode_decode(images, [dict(img_shape=images.shape[2:])])[..., :height, :width]


def exported(network: Network, images: list[Tensor], file: Path) -> None:
    """Write the network's file and see that onnxruntime answers as PyTorch does on each of the images."""
    import onnxruntime

    # TorchScript takes shapes within attention for constants, torch.export needs hours for TensorFlow's padding.
    if any(isinstance(module, nn.LayerNorm) for module in network.modules()):
        dynamic = torch.export.Dim.DYNAMIC
        how = dict(dynamo=True, dynamic_shapes=({2: dynamic, 3: dynamic},), external_data=False, verbose=False)
    else:
        how = dict(dynamo=False, dynamic_axes=dict(resized={2: 'h', 3: 'w'}, logits={2: 'h', 3: 'w'}))
    names = dict(input_names=['resized'], output_names=['logits'], opset_version=OPSET)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of either exporter, for its developers
            torch.onnx.export(network, (images[0],), str(file), **names, **how)
        session = onnxruntime.InferenceSession(file)
        for image in images:
            answer = torch.from_numpy(session.run(None, dict(resized=image.numpy()))[0])
            difference = float((answer.softmax(dim=1) - network(image).softmax(dim=1)).abs().max())
            if not difference < MOST_DIFFERENCE:
                raise ValueError(f'probabilities of {tuple(image.shape[2:])} pixels that differ by {difference:.2g}')
    except Exception as error:  # exporters and onnxruntime raise whatever they like
        parts = [type(part).__name__ for part in (network.model.backbone, network.model.decode_head)]
        reason = str(error).strip().partition('\n')[0][:300]
        raise ValueError(f'expected a network that can be exported, got {" and ".join(parts)}: {reason}') from error


def whole(network: Path, bounds: tuple[int, int], model: EncoderDecoder, value_range: Sequence[float] | None) -> bytes:
    """The network's file with what comes before and after it, the classes and the range of values that are no bytes."""
    import onnx

    middle = onnx.compose.add_prefix(onnx.load(network), 'network/')
    common = dict(ir=middle.ir_version, opset=OPSET)
    corners = 'align_corners' if model.align_corners else 'half_pixel'
    before = onnx.parser.parse_model(BEFORE.format(**common, long=float(max(bounds)), short=float(min(bounds))))
    after = onnx.parser.parse_model(AFTER.format(**common, C=model.out_channels, corners=corners))
    merged = onnx.compose.merge_models(before, middle, [('resized', 'network/resized')])
    merged = onnx.compose.merge_models(merged, after, [('network/logits', 'logits'), ('shown', 'shown')])
    meta = {key: json.dumps([*map(list if key == 'palette' else str, model.dataset_meta[key])]) for key in KEYS}
    onnx.helper.set_model_props(merged, meta | (dict(value_range=json.dumps(value_range)) if value_range else {}))
    onnx.checker.check_model(merged, full_check=True)
    return merged.SerializeToString()


def steps_of(cfg: Config) -> tuple[list[dict], tuple[int, int]]:
    """The test pipeline without masks, and the bounds of its Resize."""
    steps = cfg.test_dataloader.dataset.pipeline
    others = [step['type'] for step in steps if step['type'].split('.')[-1] not in (*LOADS, 'Resize')]
    resizes = [step for step in steps if step['type'] == 'Resize']
    if others or len(resizes) != 1 or not resizes[0].get('keep_ratio') or 'scale' not in resizes[0]:
        raise ValueError(
            f'test pipeline: expected one Resize with scale and keep_ratio=True, got {resizes} and {others}'
        )
    return [step for step in steps if 'LoadAnnotations' not in step['type']], tuple(resizes[0]['scale'])


def first_photograph(cfg: Config) -> str:
    return DATASETS.build(dict(data_of(cfg), pipeline=[])).get_data_info(0)['img_path']


@torch.no_grad()
def export(cfg: Config, checkpoint: str, out: Path, photograph: str | None) -> str:
    """Write the file; returns in words how it compares with PyTorch on the photograph."""
    import onnxruntime

    if cfg.model.get('test_cfg', {}).get('refine'):
        raise ValueError('model.test_cfg.refine: expected None, which --cfg-options sets; ONNX has no refiners')
    if told := 'sliding windows became one pass; ' * (cfg.model.get('test_cfg', {}).get('mode') == 'slide'):
        cfg.model.test_cfg = dict(mode='whole')
    steps, bounds = steps_of(cfg)
    model = load_model(cfg, checkpoint).cpu()
    if not isinstance(model, EncoderDecoder) or model.out_channels < 2:
        raise ValueError(f'expected an EncoderDecoder of two planes or more, stage 2, got {type(model).__name__}')
    photograph, pipeline = photograph or first_photograph(cfg), Compose(steps)
    value_range = next((step.value_range for step in pipeline.transforms if isinstance(step, ToEightBits)), None)
    packed = pipeline(dict(img_path=photograph))
    (result,) = model.test_step(pseudo_collate([packed]))
    expected = result.seg_logits.data.softmax(dim=0)
    for module in [*model.modules()]:
        for name, part in module.named_children():
            if isinstance(part, nn.AdaptiveAvgPool2d) and part.output_size not in (1, (1, 1)):
                setattr(module, name, Pool(part.output_size))
    resized = packed['inputs'].flip(0)[None].float()
    with TemporaryDirectory() as folder:
        exported(Network(model).eval(), [resized, resized[..., : resized.shape[2] * 2 // 3, :]], Path(folder, 'n.onnx'))
        content = whole(Path(folder, 'n.onnx'), bounds, model, value_range)
    session = onnxruntime.InferenceSession(content)
    mask, found = session.run(None, dict(photograph=read_image(photograph, value_range)))
    difference = float((torch.from_numpy(found) - expected).abs().max())
    pixels = float((torch.from_numpy(mask) != expected.argmax(dim=0)).float().mean())
    compared = f'{photograph}: probabilities differ by at most {difference:.2g}, {pixels:.3%} of the pixels'
    if pixels > MOST_PIXELS:
        raise ValueError(f'{compared}; expected at most {MOST_PIXELS:.0%}; nothing is written')
    write_atomically(out, content)
    if value_range:
        told += 'values of more than 8 bits are to be scaled first, {} to 0 and {} to 255; '.format(*value_range)
    return f'{out}: {told}{len(content) / 2**20:.1f} MiB\n{compared}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=config_file, help='config file of stage 2')
    parser.add_argument('checkpoint', type=checkpoint_file, help='its checkpoint')
    parser.add_argument('out', type=Path, help='file to write (.onnx)')
    parser.add_argument('--photograph', help='what onnxruntime and PyTorch are compared on')
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction, help='override settings, key=value')
    args = parser.parse_args()
    if args.out.suffix != '.onnx' or args.out.exists():
        there = ', which exists' * args.out.exists()
        parser.error(f'out: expected the name of a new file that ends in .onnx, got {args.out}{there}')
    cfg = load_config(args.config, args.cfg_options)
    if missing := [name for name in ('onnx', 'onnxruntime', 'onnxscript') if find_spec(name) is None]:
        parser.error(f"expected {', '.join(missing)}, got none; pip install 'aream_mm[export]'")
    print(export(cfg, args.checkpoint, args.out, args.photograph))


if __name__ == '__main__':
    main()
