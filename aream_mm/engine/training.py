"""How a network is trained: what takes part when, at which rate and precision, with which random numbers."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import broadcast_object_list, get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import IterBasedTrainLoop, Runner, autocast
from torch import nn
from torch.optim import Optimizer

from aream_mm.checks import require_numbers, require_switches, require_whole
from aream_mm.datasets.images import first_few
from aream_mm.datasets.seeding import SeededIndex, seed_generators
from aream_mm.datasets.wrapper import SegDatasetWrapper
from aream_mm.engine.checkpoints import latest_checkpoint
from aream_mm.registry import HOOKS, OPTIM_WRAPPERS, PARAM_SCHEDULERS

ITEMS, STEPS = range(2)  # what has random numbers of its own in a `RandomStateHook`


@HOOKS.register_module()
class WarmUpHook(Hook):
    """Keeps the attention loss of a `CAMSegmentor` off until the warm-up has ended; holds when a run is resumed.

    It trains the classification alone at first, because a CAM that has learnt nothing teaches nothing.

    Args:
        end: epochs (or iterations) of the warm-up.
        by_epoch: whether `end` counts epochs.
    """

    def __init__(self, end: int, by_epoch: bool = True) -> None:
        require_whole('WarmUpHook', end=end)
        require_switches('WarmUpHook', by_epoch=by_epoch)
        self.end = end
        self.by_epoch = by_epoch

    def before_train(self, runner: Runner) -> None:
        unit, last = ('epochs', runner.max_epochs) if self.by_epoch else ('steps', runner.max_iters)
        if self.end >= last and getattr(bare(runner.model), 'attention_loss', None) is not None:
            told = f'The warm-up of {self.end} {unit} outlasts the training of {last}'
            runner.logger.warning(f'{told}: the loss on the attention takes no part')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        model = bare(runner.model)
        warm_up = (runner.epoch if self.by_epoch else runner.iter) < self.end
        if model.warm_up and not warm_up:
            runner.logger.info('The warm-up has ended: the loss on the attention takes part from here.')
        model.warm_up = warm_up


@HOOKS.register_module()
class InvalidLossHook(Hook):
    """Stops the training at the first step whose loss is NaN or infinite, and before such weights would be saved.

    Each process reads its own loss, which mmengine's RuntimeInfoHook has brought to the host for the log. The error
    names the files of the step and of the one before: a gradient that is not finite shows in the next loss alone.

    Raises:
        FloatingPointError: with the iteration, the values, the files and the last checkpoint.
    """

    def before_train(self, runner: Runner) -> None:
        self.step, self.files, self.files_before = runner.iter, [], []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        self.step, self.files_before = runner.iter + 1, self.files
        self.files = [sample.img_path for sample in data_batch['data_samples']]
        values = {key: float(runner.message_hub.get_scalar(f'train/{key}').current()) for key in outputs}
        if not math.isfinite(values['loss']):
            raise FloatingPointError(self._message(runner, f'a finite loss, got {values}'))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        weights = checkpoint['state_dict']
        buffers = {name for name, _ in bare(runner.model).named_buffers()}
        bad = [name for name, weight in weights.items() if name not in buffers and not weight.isfinite().all()]
        if bad:
            raise FloatingPointError(self._message(runner, f'finite weights, got others in {first_few(bad)}'))

    def _message(self, runner: Runner, expected: str) -> str:
        return (
            f'Iteration {self.step}: expected {expected}. Its files: {", ".join(self.files)}. Those of the step '
            f'before: {", ".join(self.files_before) or "none since the start"}. The last good checkpoint: '
            f'{latest_checkpoint(runner.work_dir) or "none yet"}'
        )


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Seeds all generators with (seed, process, step) before each step, and with (seed, process, place) for each item.

    The place counts the items that the process has drawn since the training began. A training resumed from any
    checkpoint of an epoch or iteration ends with the weights of an uninterrupted one, bit for bit, with

    - `EpochBasedTrainLoop`, or `IterBasedTrainLoop` with the `InfiniteSampler`, which skips what was drawn before;
    - as many processes, and threads of each, as before; the number of workers may change;
    - on a GPU randomness.deterministic=True, as far as torch has such operations.

    The seed is that of the first start, also when resumed. Without one of our wrappers a data set's items are not
    seeded, and the log says so.
    """

    priority = 'LOWEST'  # what other hooks draw before a step makes no difference to it

    def before_train(self, runner: Runner) -> None:
        loader, seeds = runner.train_dataloader, [runner.seed]
        broadcast_object_list(seeds)
        (self.seed,) = seeds
        sampler, by_step = loader.sampler, isinstance(runner.train_loop, IterBasedTrainLoop)
        # It was built before the seed was read from the checkpoint, and an older mmengine has drawn from it already.
        if isinstance(sampler, InfiniteSampler):
            sampler.__init__(loader.dataset, sampler.shuffle, self.seed)
        sampler.seed = self.seed
        if isinstance(loader.dataset, SegDatasetWrapper):
            # The steps before are drawn anew, and thrown away, where they cannot be skipped.
            drawn_anew = runner.iter if by_step and not hasattr(sampler, 'skip') else 0
            loader.batch_sampler.sampler = SeededSampler(sampler, runner, loader.batch_size, self.seed, drawn_anew)
        else:
            runner.logger.warning(
                f'RandomStateHook: {type(loader.dataset).__name__} is not wrapped by a data set of aream_mm, such as '
                'MaskDataset, so that a run that is resumed augments its images otherwise than one left alone'
            )
        if by_step:
            runner.train_loop.dataloader_iterator = type(runner.train_loop.dataloader_iterator)(loader)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        seed_generators(self.seed, get_rank(), STEPS, runner.iter)


@dataclass
class SeededSampler:
    """The indices of a sampler, each with the key of its place in the training."""

    sampler: Iterable[int]
    runner: Runner
    batch_size: int
    seed: int
    drawn_anew: int  # steps

    def __iter__(self) -> Iterator[SeededIndex]:
        # Both loops ask for an iterator when all earlier batches have been trained on.
        start = (self.runner.iter - self.drawn_anew) * self.batch_size
        for place, index in enumerate(self.sampler, start):
            yield SeededIndex(index, (self.seed, get_rank(), ITEMS, place))

    def __len__(self) -> int:
        return len(self.sampler)


@PARAM_SCHEDULERS.register_module()
class TimmCosineLR(LRSchedulerMixin, _ParamScheduler):
    """timm's cosine schedule with a linear warm-up, by epoch; one epoch late, as in its training script.

        rate(t) = warm_up_lr + (lr − warm_up_lr) · t / warm_up                  for t < warm_up
        rate(t) = eta_min + (lr − eta_min) · (1 + cos(π t / epochs)) / 2        after it

    with t = max(epoch − 1, 0), so that the first two epochs have one rate.

    Args:
        optimizer: mmengine's wrapper or torch's optimiser; `lr` is that of each of its groups.
        epochs: of the whole training.
        warm_up: epochs of the warm-up.
        warm_up_lr: the rate it begins with, of every group.
        eta_min: the rate that the cosine would end with, of every group.
    """

    def __init__(
        self, optimizer: Optimizer, epochs: int, warm_up: int, warm_up_lr: float = 1e-6, eta_min: float = 1e-5, **kwargs
    ) -> None:
        require_whole('TimmCosineLR', low=1, epochs=epochs)
        require_whole('TimmCosineLR', warm_up=warm_up)
        require_numbers('TimmCosineLR', warm_up_lr=warm_up_lr, eta_min=eta_min)
        self.epochs, self.warm_up, self.warm_up_lr, self.eta_min = epochs, warm_up, warm_up_lr, eta_min
        super().__init__(optimizer, **kwargs)

    def _get_value(self) -> list[float]:
        t = max(self.last_step - 1, 0)
        if t < self.warm_up:
            return [self.warm_up_lr + (lr - self.warm_up_lr) * t / self.warm_up for lr in self.base_values]
        rest = (1 + math.cos(math.pi * t / self.epochs)) / 2
        return [self.eta_min + (lr - self.eta_min) * rest for lr in self.base_values]


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Computes losses under autocast in bfloat16, whose range needs no loss scaling.

    mmengine's `AmpOptimWrapper` refuses a CPU. One that computes in bfloat16 (AVX-512 BF16, AMX) trains about twice as
    fast with it, another one is slower. Arguments are those of `OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield


def bare(model: nn.Module) -> nn.Module:
    """The model inside a distributed wrapper, or the model."""
    return model.module if is_model_wrapper(model) else model
