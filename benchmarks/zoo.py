"""Every network of stage 1, with AReAM and without: its size, and what a training step and a CAM cost.

    python benchmarks/zoo.py
    python benchmarks/zoo.py --out work_dirs/bench/zoo.json

prints a table in Markdown. Time and memory are relative to MCTformer-V2 in the same run, with random weights.

parameters, M   of network and heads, in millions
trained, M      those of them that are not frozen
GFLOPs          of the forward pass of one image of the training size, as mmengine counts: a multiplication with its
                addition is one. The affinities of all layers are read, because it cannot count fused attention.
px              a side of that image
step            forward, backward and AdamW at the training size, with the label and loss of AReAM where there is one
memory          the most that steps take above the empty process, each network in a new one
CAM             of one photograph, at the config's scales and with its mirror image, up to the mask
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import track_iter_progress
from networks import photographs, prediction, tags, training_step
from prettytable import TableStyle
from timing import DEVICE, Setting, Work, as_table, in_turn, median_ratio, peak_memory, write_figures
from torch import Tensor, nn

from aream_mm.models.segmentor import CAMSegmentor
from aream_mm.registry import MODELS

CONFIGS = Path(__file__).parents[1] / 'configs'
BASELINE = 'mctformer_voc.py'
PHOTOGRAPH = (384, 512)  # height and width of most of VOC's, as the configs' pipelines resize them
PURPOSES = {
    'cnn_cam_voc.py': 'the plain CAM of a ResNet-50: what tags give without a transformer',
    'vit_cam_voc.py': 'the plain CAM of a DeiT-S: what class tokens and propagation have to improve on',
    BASELINE: 'MCTformer-V2: what the loss of AReAM has to improve on',
    'aream_vit_voc.py': "the paper's first network",
    'aream_vit_entropy_voc.py': 'the same with layers weighed by their entropy, to see which of them over-smooth',
    'aream_vit_single_voc.py': 'the loss on a ViT of one class token, such as DINO',
    'aream_dinov3_voc.py': "the paper's loss on DINOv3, whose positions are rotations",
    'aream_dual_dinov3_voc.py': 'a CNN, and DINOv3 for the affinity',
    'aream_dual_voc.py': "a CNN and a ViT of your choice among timm's",
    'aream_vit_animals.py': 'DINOv2 with frozen shallow layers: few photographs, on a laptop',
    'transcam_voc.py': 'TransCAM: what the loss has to improve on with a Conformer',
    'aream_conformer_voc.py': "the paper's second network, which has the better seeds there, and costs the most",
}


def network(config: str) -> CAMSegmentor:
    """The model of a config, with random weights."""
    model = MODELS.build(Config.fromfile(CONFIGS / config).model).to(DEVICE)
    if model.attention_loss and not model.attention_loss.measured:
        model.attention_loss.weigh_layers(torch.arange(model.backbone.num_layers))
    return model


def step(config: str, setting: Setting) -> Work:
    model, side = network(config), Config.fromfile(CONFIGS / config).crop_size
    return training_step(model, photographs(setting.batch, side, side), tags(setting.batch, model.head.num_classes))


def cam(config: str) -> Work:
    model = network(config)
    return prediction(model, photographs(1, *PHOTOGRAPH), tags(1, model.head.num_classes))


def steps(setting: Setting) -> dict[str, Callable[[], Work]]:
    """The training step of each network, for a batch of the setting; size and classes are the config's."""
    return {config: partial(step, config, setting) for config in PURPOSES}


class AllAffinities(nn.Module):
    """The class map and logits of a segmentor whose network exposes the affinity of every layer."""

    def __init__(self, model: CAMSegmentor) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        attended = self.model.backbone(images, dict.fromkeys(range(self.model.backbone.num_layers), 1.0))
        class_map, logits = self.model.head(attended)
        affinities = (attended.class_affinity, attended.patch_affinity)
        return class_map, *logits.values(), *(affinity for affinity in affinities if affinity is not None)


def size(config: str) -> dict[str, float]:
    """Parameters in millions, training size in pixels and GFLOPs of one image of it."""
    model, side = network(config).eval(), Config.fromfile(CONFIGS / config).crop_size
    counts = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    flops = FlopAnalyzer(AllAffinities(model), photographs(1, side, side))
    flops.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings('none')
    return {
        'parameters, M': sum(count for count, _ in counts) / 1e6,
        'trained, M': sum(count for count, trained in counts if trained) / 1e6,
        'px': side,
        'GFLOPs': flops.total() / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch', type=int, default=4, help='images of a training step')
    parser.add_argument('--runs', type=int, default=5, help='rounds that are counted')
    parser.add_argument('--out', type=Path, help='JSON file for the figures')
    args = parser.parse_args()
    init_default_scope('mmseg')
    torch.manual_seed(0)
    setting = Setting(size=max(PHOTOGRAPH), batch=args.batch, num_classes=20)
    sizes = {config: size(config) for config in track_iter_progress(list(PURPOSES))}
    step_times = in_turn({config: build() for config, build in steps(setting).items()}, args.runs)
    cam_times = in_turn({config: cam(config) for config in PURPOSES}, args.runs)
    peaks = peak_memory(steps, setting, PURPOSES)
    rows = [
        {
            'config': f'`{config}`',
            **sizes[config],
            'step': median_ratio(step_times[config], step_times[BASELINE]),
            'memory': peaks[config] and peaks[config] / peaks[BASELINE],
            'CAM': median_ratio(cam_times[config], cam_times[BASELINE]),
            'what it is for': purpose,
        }
        for config, purpose in PURPOSES.items()
    ]
    table = as_table(rows)
    table.set_style(TableStyle.MARKDOWN)
    table.align['config'] = table.align['what it is for'] = 'l'
    print(table)
    if args.out:
        seconds = {config: dict(step=step_times[config], cam=cam_times[config]) for config in PURPOSES}
        write_figures(args.out, batch=args.batch, runs=args.runs, rows=rows, seconds=seconds, peaks=peaks)


if __name__ == '__main__':
    main()
