"""CyclicTrainLoop: stage 2 in rounds, each trained on masks that the network of the round before has written."""

import json
from math import ceil
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import all_reduce, barrier, get_rank, get_world_size, is_main_process
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from PIL import Image
from torch import nn

from aream_mm.datasets.pictures import first_few
from aream_mm.datasets.pseudo_masks import PseudoMaskDataset
from aream_mm.engine.checkpoints import validation_is_due
from aream_mm.engine.pseudo_masks import PseudoMaskHook
from aream_mm.files import write_atomically
from aream_mm.models.cam import IGNORE_INDEX
from aream_mm.registry import LOOPS


@LOOPS.register_module()
class CyclicTrainLoop(IterBasedTrainLoop):
    """Trains stage 2 in rounds: what the network of a round predicts on the training pictures trains the next round.

    Round 1 trains on the masks in the data set's `mask_dir`. At its end `PseudoMaskHook` writes the network's own masks
    to `round_1` in the work dir, of the tagged classes and background alone, refined if its `test_cfg` says so; round 2
    trains on these, and so on. Every round ends with a validation and these files:

    - `round_<n>.pth`: its network;
    - `round_<n>`: the masks that this network has written;
    - `rounds.json`: a row a round, with `mIoU` of its masks where there are true ones, `agreement` with the masks that
      it was trained on, and `val_mIoU` of what the network itself predicts, all in percent. Row 0 is the masks that it
      all starts from.

    Agreement is the share of pixels with equal ids, of those that neither mask ignores. The rounds end early when it
    has not risen by `settled` since the round before. It is no measure of quality: docs/chain.md.

    Every round starts with the same weights, optimiser and schedules, those before the first step, which `initial.pth`
    keeps: a pretrained backbone and a head that has learnt nothing. Trained on, a network would repeat the faults that
    it knows by heart from older masks, and have had more steps with each round, so that rounds could not be compared.

    Steps are counted through all rounds, so that `--resume` finds the round as well as the step.

    Args:
        runner, dataloader: as for `IterBasedTrainLoop`; the data set is a `PseudoMaskDataset`.
        rounds: how many at most.
        max_iters: steps of a round. Schedules of the learning rate have to end by then.
        masks: arguments of `PseudoMaskHook` except `out_dir`; its data set has the pictures that are trained on.
        settled: in percent of the pixels. The default is more than chance: the agreement of two networks with the masks
            that both were trained on differed by 0.1.
        **options: further ones of `IterBasedTrainLoop`.

    Raises:
        ValueError: schedules that are longer than a round; pictures to be written that have no mask to begin with.
        TypeError: the data set is no `PseudoMaskDataset`.
        FileNotFoundError: a run that is resumed has no `initial.pth`.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        rounds: int,
        max_iters: int,
        masks: dict,
        settled: float = 0.5,
        **options,
    ) -> None:
        super().__init__(runner, dataloader, rounds * max_iters, **options)
        if not isinstance(self.dataloader.dataset, PseudoMaskDataset):
            got = type(self.dataloader.dataset).__name__
            raise TypeError(f'CyclicTrainLoop: expected a PseudoMaskDataset to train on, got {got}')
        self.dataloader_config = dataloader
        self.rounds = rounds
        self.round_iters = max_iters
        self.settled = settled
        self.writer = PseudoMaskHook(**masks)
        self.initial = Path(runner.work_dir) / 'initial.pth'

    def run(self) -> nn.Module:
        """Train the rounds, from where a resumed run was."""
        self._check()
        self.runner.call_hook('before_train')
        if self._iter == 0:
            self._save(self.initial.name, resumable=True)
        for number in range(max(ceil(self._iter / self.round_iters), 1), self.rounds + 1):
            if self._iter < number * self.round_iters:
                self._train(number)
            if self.stop_training or self._finish(number):
                break
        self.runner.call_hook('after_train')
        return self.runner.model

    def _check(self) -> None:
        """Find before hours of training what would be in the way after them."""
        self.writer.before_train(self.runner)
        schedules = self.runner.param_schedulers or ()
        late = [f'{type(one).__name__} to {one.end}' for one in schedules if one.end > self.round_iters]
        if late:
            raise ValueError(
                f'CyclicTrainLoop: expected schedules that end with a round of {self.round_iters} steps, got {late}'
            )
        absent = [str(path) for path in self._files(0) if not path.is_file()]
        if absent:
            raise ValueError(
                f'CyclicTrainLoop: expected a mask of each picture of `masks` to begin with, {len(absent)} lack: '
                f'{first_few(absent)}'
            )
        if self._iter > 0 and not self.initial.is_file():
            raise FileNotFoundError(f'CyclicTrainLoop: expected {self.initial}, which a run to resume has, got no file')

    def _folder(self, number: int) -> Path:
        """The masks that a round has written; of round 0, those that round 1 is trained on."""
        first = Path(self.dataloader_config['dataset']['mask_dir'])
        return Path(self.runner.work_dir) / f'round_{number}' if number else first

    def _files(self, number: int) -> list[Path]:
        infos = map(self.writer.dataset.get_data_info, range(len(self.writer.dataset)))
        return [self._folder(number) / f'{info["sample_id"]}.png' for info in infos]

    def _train(self, number: int) -> None:
        """The steps of a round, or the rest of them."""
        runner, begin, folder = self.runner, (number - 1) * self.round_iters, self._folder(number - 1)
        runner.logger.info(f'Round {number} of {self.rounds}: training on the masks in {folder}')
        if number > 1:
            dataset = dict(self.dataloader_config['dataset'], mask_dir=str(folder))
            self.dataloader = runner.build_dataloader(dict(self.dataloader_config, dataset=dataset), seed=runner.seed)
            self.dataloader_iterator = _InfiniteDataloaderIterator(self.dataloader)
            if self._iter == begin:
                self._restart()
        runner.optim_wrapper.initialize_count_status(runner.model, self._iter - begin, self.round_iters)
        runner.call_hook('before_train_epoch')
        self.dataloader_iterator.skip_iter(self._iter - begin)
        while self._iter < begin + self.round_iters and not self.stop_training:
            runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            if validation_is_due(runner):
                runner.val_loop.run()
        runner.call_hook('after_train_epoch')

    def _restart(self) -> None:
        """Weights, optimiser and schedules as they were before the first step."""
        checkpoint = self.runner.load_checkpoint(str(self.initial), map_location='cpu', strict=True)
        self.runner.optim_wrapper.load_state_dict(checkpoint['optimizer'])
        states = checkpoint.get('param_schedulers', ())
        for scheduler, state in zip(self.runner.param_schedulers or (), states, strict=True):
            scheduler.load_state_dict(state)

    def _finish(self, number: int) -> bool:
        """Validate, write the masks and measure them; whether they have settled."""
        runner, hub = self.runner, self.runner.message_hub
        if runner.val_loop is not None and hub.runtime_info.get('last_validation') != self._iter:
            runner.val_loop.run()
        self._save(f'round_{number}.pth', resumable=False)
        self.writer.out_dir = self._folder(number)
        manifest = self.writer.write(runner, str(Path(runner.work_dir) / f'round_{number}.pth'))
        val_miou = hub.log_scalars.get('val/mIoU')
        row = dict(
            round=number,
            masks=str(self._folder(number)),
            mIoU=manifest['mIoU'],
            agreement=agreement(self._files(number), self._files(number - 1)),
            val_mIoU=val_miou and round(float(val_miou.current()), 2),
        )
        rows = [earlier for earlier in hub.runtime_info.get('rounds', ()) if 0 < earlier['round'] < number]
        first = json.loads((self._folder(0) / 'manifest.json').read_bytes()).get('mIoU')
        rows = [dict(round=0, masks=str(self._folder(0)), mIoU=first, agreement=None, val_mIoU=None), *rows, row]
        hub.update_info('rounds', rows)  # which the next checkpoint keeps
        if is_main_process():
            write_atomically(Path(runner.work_dir) / 'rounds.json', json.dumps(rows, indent=2).encode())
        barrier()
        runner.logger.info(f'Round {number} of {self.rounds}: {row}')
        if number == 1 or row['agreement'] - rows[-2]['agreement'] >= self.settled:
            return False
        runner.logger.info(
            f'The masks have settled: {rows[-2]["agreement"]} % of the pixels agreed, then {row["agreement"]} %'
        )
        return True

    def _save(self, name: str, resumable: bool) -> None:
        self.runner.save_checkpoint(
            self.runner.work_dir,
            name,
            save_optimizer=resumable,
            save_param_scheduler=resumable,
            meta=dict(epoch=0, iter=self._iter),
            backend_args=dict(backend='aream_mm.atomic'),
        )


def agreement(files: list[Path], others: list[Path]) -> float:
    """The pixels of equal ids in two masks of each picture, in percent of those that neither ignores."""
    counts = torch.zeros(2, dtype=torch.int64)
    for pair in list(zip(files, others, strict=True))[get_rank() :: get_world_size()]:
        one, other = (np.array(Image.open(path)) for path in pair)
        labelled = (one != IGNORE_INDEX) & (other != IGNORE_INDEX)
        counts += torch.tensor([(one == other)[labelled].sum(), labelled.sum()])
    all_reduce(counts)
    return round(100 * counts[0].item() / max(counts[1].item(), 1), 2)
