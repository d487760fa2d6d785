"""Train a stage 1 or stage 2 config.

python tools/train.py configs/aream_vit_voc.py --cfg-options data_root=/data/VOCdevkit/VOC2012
"""

import argparse
import os
from pathlib import Path

import torch
from launcher import join_processes_without_gpu
from mmengine.runner import Runner, find_latest_checkpoint
from options import OptionAction, load_config
from torch.distributed.elastic.multiprocessing.errors import record

from aream_mm.checkpoint import require_fitting_shapes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints; default: work_dirs/<name of the config>')
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


@record  # torchrun then ends with the message of the process that failed first
def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.resume = args.resume
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    if args.amp:
        on_gpu = dict(type='AmpOptimWrapper', loss_scale='dynamic')
        cfg.optim_wrapper.update(on_gpu if torch.cuda.is_available() else dict(type='aream_mm.BFloat16OptimWrapper'))
    join_processes_without_gpu(cfg)
    runner = Runner.from_cfg(cfg)
    checkpoint = cfg.get('load_from') or (find_latest_checkpoint(cfg.work_dir) if cfg.resume else None)
    if checkpoint:
        require_fitting_shapes(runner.model, checkpoint, resume=cfg.resume)
    runner.train()


if __name__ == '__main__':
    main()
