"""Train a stage 1 or stage 2 config.

python tools/train.py configs/aream_vit_voc.py --cfg-options data_root=/data/VOCdevkit/VOC2012
"""

import argparse
import os
from pathlib import Path

import aream_mm.quiet  # noqa: F401

import torch
from arguments import config_file, folder
from console import QuietRunner
from launcher import join_processes_without_gpu
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.registry import MODELS
from mmengine.runner import FlexibleRunner, Runner
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from options import OptionAction, load_config
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import record

from aream_mm.checkpoint import load_fitting_checkpoint
from aream_mm.datasets import ImageTagDataset
from aream_mm.datasets.images import first_few
from aream_mm.datasets.wrapper import has_mask
from aream_mm.engine.checkpoints import latest_checkpoint
from aream_mm.engine.training import bare
from aream_mm.evaluation import CAMMetric


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=config_file, help='config file')
    parser.add_argument(
        '--work-dir', type=folder, help='folder of logs and checkpoints; default: work_dirs/<name of the config>'
    )
    parser.add_argument('--resume', action='store_true', help='go on from the latest checkpoint in the work dir')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision; bfloat16 on a CPU')
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


def require_a_run(work_dir: str) -> None:
    """Raise a FileNotFoundError unless a run has begun in the work dir, be it that it ended before its checkpoint."""
    if not latest_checkpoint(work_dir) and not any(Path(work_dir).glob('*/*.log')):
        raise FileNotFoundError(
            f'--resume: expected a run in {work_dir}, got no last_checkpoint and no log of one; leave --resume out to '
            'begin, or name its folder with --work-dir'
        )


class FittingHook(Hook):
    """Refuses, before the first step, data that the network cannot learn from.

    That is a decoder of another number of classes than the data set's, and a batch of one where the network normalises
    over the batch what it has pooled to a single place. So is a figure to choose by that no validation gives. Warns of
    learning rates for weights that it does not have, and of a schedule that ends before a resumed training does.
    """

    def before_train(self, runner: Runner) -> None:
        names = [name for name, _ in bare(runner.model).named_parameters()]
        rates = (runner.cfg.optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys', {})
        idle = [key for key in rates if not any(key in name for name in names)]
        if idle and 'strategy' not in runner.cfg:  # which renames them
            runner.logger.warning(
                'optim_wrapper.paramwise_cfg.custom_keys: expected parts of names of weights, such as '
                f'{first_few(names)}; no weight has the rate of {first_few(idle)}'
            )
        schedulers = runner.param_schedulers if runner.iter and isinstance(runner.param_schedulers, list) else []
        ends = [(each.end, runner.max_epochs if each.by_epoch else runner.max_iters) for each in schedulers]
        if ends and all(end < last for end, last in ends):
            end, last = max(ends)
            runner.logger.warning(
                'The learning rate keeps to the schedule that the run was begun with, and stays what it is after '
                f'{end} of {last}; for a longer schedule begin anew, from these weights with load_from'
            )
        classes = getattr(runner.train_dataloader.dataset, 'metainfo', {}).get('classes', ())
        for name, module in runner.model.named_modules():
            if isinstance(module, BaseDecodeHead) and classes and module.num_classes != len(classes):
                raise ValueError(
                    f'model.{name}.num_classes: expected {len(classes)}, as many as the data set has classes '
                    f'({first_few(list(classes))}), got {module.num_classes}'
                )
        require_figures(runner)
        loader, size = runner.train_dataloader, runner.train_dataloader.batch_size
        learns = getattr(bare(runner.model), 'attention_loss', True)
        if getattr(loader.dataset, 'true_masks', False) and not learns:
            raise ValueError(
                'train_dataloader.dataset.true_masks: expected a model.attention_loss to learn them, got None'
            )
        endless = isinstance(loader.sampler, InfiniteSampler) or loader.drop_last
        rest = 0 if endless or not size else len(loader.sampler) % size
        if 1 in (size, rest) and (name := pooled_norm(runner.model)):
            got = f'batch_size={size}' + (f' and a last batch of one of {len(loader.sampler)}' if size > 1 else '')
            raise ValueError(
                f'train_dataloader: expected batches of two or more for the batch normalisation in {name}, got {got}; '
                'set train_dataloader.batch_size=2 or more, and train_dataloader.drop_last=True for the last one'
            )


def require_figures(runner: Runner) -> None:
    """Raise a ValueError if the best checkpoint is to be chosen by a figure of none of the validation's metrics."""
    keys = {key for hook in runner.hooks for key in getattr(hook, 'save_best', None) or ()} - {'auto'}
    if not keys or not runner.val_loop:
        return
    data = runner.val_dataloader.dataset
    masked = not isinstance(data, ImageTagDataset) or any(has_mask(data.get_data_info(i)) for i in range(len(data)))
    metrics = [each for each in runner.val_evaluator.metrics if masked or not isinstance(each, CAMMetric)]
    if others := [key for key in keys if (key.rpartition('/')[0] or None) not in {each.prefix for each in metrics}]:
        known = ', '.join(type(each).__name__ + (f' ({each.prefix}/…)' if each.prefix else '') for each in metrics)
        got = first_few(others) + ', and no masks to measure CAMs with' * (not masked)
        raise ValueError(f'default_hooks.checkpoint.save_best: expected a figure of {known or "a metric"}, got {got}')


def pooled_norm(model: nn.Module) -> str | None:
    """The name of a module that pools to 1 × 1 and then normalises over the batch of this process."""
    for name, module in model.named_modules():
        first = module[0] if isinstance(module, nn.Sequential) and len(module) else None
        if isinstance(first, nn.AdaptiveAvgPool2d) and first.output_size in (1, (1, 1)):
            norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            if any(not isinstance(norm, nn.SyncBatchNorm) or get_world_size() == 1 for norm in norms):
                return name
    return None


def require_training_alone(cfg: Config) -> None:
    """Raise a ValueError for what goes wrong where each process has but a part of the network.

    Hooks run it without gathering the parts; a validation waits forever for a process that has fewer images; and
    mmengine 0.10 hands the state of the optimizer to torch in an order of arguments that torch has given up.
    """
    if cfg.resume:
        raise ValueError(
            'strategy: expected no --resume, as mmengine cannot load the optimizer of a network that is shared out; '
            'start from the weights with --cfg-options load_from=CHECKPOINT'
        )
    names = [hook['type'].rpartition('.')[2] for hook in cfg.get('custom_hooks') or ()]
    there = sorted({'PseudoMaskHook', 'LayerEntropyHook', 'AffinityProfileHook'} & set(names))
    if there or cfg.get('val_dataloader'):
        raise ValueError(
            'strategy: expected training alone where the network is shared out among the processes, got '
            f'{there + ["val_dataloader"] * bool(cfg.get("val_dataloader"))}; tools/test.py measures and writes masks '
            'from the checkpoint, see docs/running.md'
        )


@record  # torchrun then ends with the message of the process that failed first
def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.resume = args.resume
    cfg.work_dir = args.work_dir and str(args.work_dir) or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    if args.amp:
        on_gpu = dict(type='AmpOptimWrapper', loss_scale='dynamic')
        cfg.optim_wrapper.update(on_gpu if torch.cuda.is_available() else dict(type='aream_mm.BFloat16OptimWrapper'))
    if cfg.resume and not cfg.get('load_from'):
        require_a_run(cfg.work_dir)
    join_processes_without_gpu(cfg)
    sharded = 'strategy' in cfg
    if sharded:
        require_training_alone(cfg)
    runner = (FlexibleRunner if sharded else QuietRunner).from_cfg(cfg)
    runner.register_hook(FittingHook())
    checkpoint = cfg.get('load_from') or (latest_checkpoint(cfg.work_dir) if cfg.resume else None)
    if checkpoint:
        model = MODELS.build(cfg.model) if sharded else runner.model  # which is built when training starts
        if cfg.resume:
            load_fitting_checkpoint(model, checkpoint, resume=True)
            runner._load_from = checkpoint  # which the Runner looks for where it was written, not where it is
        else:  # to begin with, what there is of the model
            load_fitting_checkpoint(model, checkpoint, strict=False)
    runner.train()


if __name__ == '__main__':
    main()
