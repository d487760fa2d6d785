"""RandomStateHook: an interrupted training goes on with the random numbers of one that was not."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mmengine.dataset import InfiniteSampler
from mmengine.dist import broadcast_object_list, get_rank
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from aream_mm.datasets.seeding import SeededIndex, seed_generators
from aream_mm.datasets.wrapper import SegDatasetWrapper
from aream_mm.registry import HOOKS

ITEMS, STEPS = range(2)  # their random numbers have nothing in common


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
