r"""Measure a checkpoint of either stage; write predictions, paintings or pseudo masks.

python tools/test.py configs/aream_vit_voc.py work_dirs/aream_vit_voc/epoch_60.pth --pseudo-masks

Stage 2 on images that have no masks, such as VOC's `test` list: nothing is measured, the predictions are written.

python tools/test.py configs/seg/deeplabv3plus_r50_voc.py work_dirs/deeplabv3plus_r50_voc/iter_20000.pth --tta \
    --out predictions --cfg-options test_evaluator.format_only=True \
    test_dataloader.dataset.dataset.ann_file=ImageSets/Segmentation/test.txt

Either stage with its predictions refined; stage 2, as here, at full size unless model.test_cfg.refine_scale is below
1. With --pseudo-masks the masks of the training images too, of the classes that they are tagged with:

python tools/test.py CONFIG CHECKPOINT --cfg-options model.test_cfg.refine.type=aream_mm.DenseCRF \
    model.test_cfg.refine.bilateral_sxy=67
"""

import argparse
import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import aream_mm.quiet  # noqa: F401

from arguments import checkpoint_file, config_file, folder, new_folder
from console import QuietRunner
from launcher import join_processes_without_gpu
from mmengine.config import Config
from mmseg.evaluation import IoUMetric
from options import OptionAction, load_config
from torch.distributed.elastic.multiprocessing.errors import record

from aream_mm.checkpoint import load_fitting_checkpoint
from aream_mm.registry import METRICS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=config_file, help='config file')
    parser.add_argument('checkpoint', type=checkpoint_file, help='checkpoint file')
    parser.add_argument(
        '--work-dir', type=folder, help='folder of the metrics; default: work_dirs/<name of the config>'
    )
    parser.add_argument(
        '--out', type=new_folder, help='new folder for the predictions as PNG, at the paths of the images'
    )
    parser.add_argument(
        '--show-dir', type=new_folder, help='new folder for the predictions painted over the images, at their paths'
    )
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument('--pseudo-masks', action='store_true', help='write masks of the training images too')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionAction,
        help='override settings, key=value; data_root=PATH moves every path of the data set',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torch.distributed.launch passes it; torchrun sets the variable instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def require_read(options: dict, tta: bool) -> None:
    """Raise a ValueError for an option whose place another argument takes."""
    taken = dict(load_from='the argument CHECKPOINT')
    taken |= {'test_dataloader.dataset.pipeline': 'tta_pipeline, which --tta uses'} if tta else {}
    for option, (start, place) in product(options, taken.items()):
        if f'{option}.'.startswith(f'{start}.'):
            raise ValueError(f'{option}: expected {place}, got an option without effect')


def test_evaluators(cfg: Config) -> list[dict]:
    return cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]


def without_masks(transforms: list) -> list:
    """A pipeline, or the alternatives of a TestTimeAug, without the steps that load masks."""
    kept = []
    for step in transforms:
        if isinstance(step, list):
            kept += [rest] if (rest := without_masks(step)) else []
        elif step['type'] == 'TestTimeAug':
            kept.append(dict(step, transforms=without_masks(step['transforms'])))
        elif step['type'] != 'LoadAnnotations':
            kept.append(step)
    return kept


def predict_only(cfg: Config) -> None:
    """Read no masks, which a list such as VOC's `test` does not have; nothing is measured."""
    if not all(evaluator.get('output_dir') for evaluator in test_evaluators(cfg)):
        raise ValueError('format_only: expected --out FOLDER for the predictions, got none')
    cfg.test_dataloader.dataset.pipeline = without_masks(cfg.test_dataloader.dataset.pipeline)


def merge_views(cfg: Config) -> None:
    """Average over the views of an image."""
    if 'tta_pipeline' not in cfg:
        raise ValueError(
            '--tta: expected a config with a tta_pipeline, such as those of stage 2 in configs/seg, got one without; '
            'stage 1 has scales and mirror in model.test_cfg for it'
        )
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    # Unless it is said, mmengine puts the data_preprocessor at the top of the config in the place of the model's own.
    preprocessor = cfg.model.get('data_preprocessor', cfg.get('data_preprocessor'))
    cfg.model = dict(cfg.tta_model, module=cfg.model, data_preprocessor=preprocessor)


def ask_for_pseudo_masks(cfg: Config) -> None:
    """By the hooks of the config that write masks, or by one over its pseudo_mask_dataloader."""
    hooks = [hook for hook in cfg.get('custom_hooks', []) if hook['type'] == 'aream_mm.PseudoMaskHook']
    if not hooks:
        if 'pseudo_mask_dataloader' not in cfg:
            raise ValueError(
                '--pseudo-masks: expected a config with an aream_mm.PseudoMaskHook in custom_hooks, or a '
                'pseudo_mask_dataloader, got neither'
            )
        hook = dict(type='aream_mm.PseudoMaskHook', dataloader=cfg.pseudo_mask_dataloader, after_test=True)
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), hook]
    for hook in hooks:
        hook['after_test'] = True


@METRICS.register_module(force=True)  # where a process runs this script again
class PredictionMetric(IoUMetric):
    """mmseg's, whose predictions keep the paths of the images below their folder: a/1.png beside b/1.png."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.written = {}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        folder = Path(self.output_dir)
        for sample in data_samples:
            path = sample['img_path']
            name = folder / f'{sample.get("sample_id") or Path(path).stem}.png'
            if self.written.setdefault(name, path) != path:
                raise ValueError(f'--out: expected one image for {name}, got {self.written[name]} and {path}')
            name.parent.mkdir(parents=True, exist_ok=True)
            self.output_dir = str(name.parent)
            super().process(data_batch, [sample])
        self.output_dir = str(folder)


def write_predictions(cfg: Config, folder: Path) -> None:
    metrics = [evaluator for evaluator in test_evaluators(cfg) if evaluator['type'] == 'IoUMetric']
    if not metrics:
        raise ValueError('--out: expected a config with an IoUMetric, got none; for stage 1 there is --pseudo-masks')
    for metric in metrics:
        metric.update(type='aream_mm.PredictionMetric', output_dir=str(folder), keep_results=True)


@record  # torchrun then ends with the message of the process that failed first
def main() -> None:
    args = parse_args()
    read = ['tta_model', 'tta_pipeline'] * args.tta + ['pseudo_mask_dataloader'] * args.pseudo_masks
    cfg = load_config(args.config, args.cfg_options, read)
    require_read(args.cfg_options or {}, args.tta)
    cfg.launcher = args.launcher
    cfg.load_from = args.checkpoint
    cfg.work_dir = args.work_dir and str(args.work_dir) or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    if args.show_dir:
        cfg.default_hooks.visualization.update(draw=True, interval=1)
        cfg.visualizer.update(type='aream_mm.PathVisualizer', overlay_dir=str(args.show_dir))
    if args.tta:
        merge_views(cfg)
    if args.out:
        write_predictions(cfg, args.out)
    if all(evaluator.get('format_only') for evaluator in test_evaluators(cfg)):
        predict_only(cfg)
    if args.pseudo_masks:
        ask_for_pseudo_masks(cfg)
    join_processes_without_gpu(cfg)
    runner = QuietRunner.from_cfg(cfg)
    load_fitting_checkpoint(runner.model, args.checkpoint)
    runner.test()


if __name__ == '__main__':
    main()
