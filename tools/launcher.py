"""Several processes on a machine without GPU, for trying out what a launcher starts."""

import atexit
import os
import sys
from threading import Thread

import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device

PATIENCE = 20  # seconds


def join_processes_without_gpu(cfg: Config) -> None:
    """Join the processes that torchrun has started (cfg.launcher 'pytorch') by gloo; with a GPU, mmengine does it all.

    mmengine would give each process a GPU, and its model a device id. It leaves a group alone that exists already.
    The process leaves the group when it ends: gloo's threads, where they live longer than Python, may abort it.

    Raises:
        ValueError: another launcher than torchrun on a machine without GPU.
    """
    if cfg.launcher == 'none' or get_device() != 'cpu':
        return
    if cfg.launcher != 'pytorch':
        raise ValueError(
            f'--launcher {cfg.launcher}: expected a GPU for each process, got none; without GPUs there is '
            'tools/dist_train.sh, which starts torchrun'
        )
    dist.init_process_group('gloo')
    atexit.register(leave_processes)
    if 'strategy' in cfg:
        cfg.strategy.model_wrapper.device_id = 'cpu'
        return
    find_unused_parameters = cfg.get('find_unused_parameters', False)
    cfg.setdefault(
        'model_wrapper_cfg',
        dict(device_ids=None, broadcast_buffers=False, find_unused_parameters=find_unused_parameters),
    )


def leave_processes() -> None:
    """Leave the group, for which gloo of torch 2.1 at times waits without end; the process then ends without it."""
    leaving = Thread(target=dist.destroy_process_group, daemon=True)
    leaving.start()
    leaving.join(PATIENCE)
    if leaving.is_alive():
        sys.stdout.flush()
        os._exit(int(hasattr(sys, 'last_type')))  # which an error leaves
