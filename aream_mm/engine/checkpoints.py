"""SafeCheckpointHook: a training that is killed at any moment finds a whole checkpoint, and the best one."""

import hashlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner, find_latest_checkpoint

from aream_mm.checkpoint import classes_of
from aream_mm.checks import require, require_whole
from aream_mm.datasets.contents import contents, read_digest
from aream_mm.datasets.images import first_few
from aream_mm.datasets.pseudo_masks import PseudoMaskDataset
from aream_mm.datasets.tags import require_same_classes
from aream_mm.datasets.wrapper import SegDatasetWrapper, has_mask
from aream_mm.files import write_atomically
from aream_mm.registry import HOOKS


class AtomicBackend(LocalBackend):
    """mmengine's backend of local files, whose files appear whole."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_atomically(Path(filepath), obj)


register_backend('aream_mm.atomic', AtomicBackend, force=True)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's `CheckpointHook` for local files, safe against a kill or a full disk at any moment.

    Files appear whole, and the oldest checkpoint goes last. Temporary files of killed runs are removed at the start.
    Where validation was due at a checkpoint, a resumed run begins with it, unless that checkpoint is the best so far.
    A new run moves the checkpoints of an earlier one, and its `last_checkpoint`, to a folder `before_<timestamp>`.
    The Runner loads no checkpoint of other classes than those of the config's data sets, or of another order of them.
    In a work dir that was copied or moved, a resumed run goes on with the files there.
    A checkpoint knows the photographs, by what is in their files, whose true masks it and those before it have learnt.
    A warning tells where they are measured on, and another where a resumed stage 2 finds other masks to learn.

    Takes the arguments of mmengine's except `backend_args` and `file_client_args`.
    """

    def __init__(self, **kwargs) -> None:
        intervals = {key: kwargs[key] for key in ('interval', 'max_keep_ckpts') if kwargs.get(key, -1) != -1}
        require_whole('SafeCheckpointHook', low=1, **intervals)
        super().__init__(backend_args=dict(backend='aream_mm.atomic'), **kwargs)
        require('SafeCheckpointHook', list(self.args), 'arguments of CheckpointHook alone', not self.args)
        self.learnt: set[str] = set()  # digests of photographs

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        if classes := classes_of_loops(runner):
            require_same_classes('val_dataloader', classes[0], classes[-1])
        self.learnt.update(getattr(runner.train_dataloader.dataset, 'learnt_masks', ()))
        runner.message_hub.update_info('learnt_masks', sorted(self.learnt))
        self._tell_learnt(runner, runner._val_loop)
        if isinstance(dataset := runner.train_dataloader.dataset, PseudoMaskDataset):
            files = [dataset.get_data_info(i)['seg_map_path'] for i in range(len(dataset))]
            digest = hashlib.sha256(''.join(contents(read_digest, files)).encode()).hexdigest()
            if runner.message_hub.runtime_info.get('masks', digest) != digest:
                runner.logger.warning(f'{dataset.mask_dir}: the masks are others than those that the run began with')
            runner.message_hub.update_info('masks', digest)
        if is_main_process():
            for leftover in Path(runner.work_dir).rglob('*.tmp'):
                leftover.unlink()
            earlier = [*Path(self.out_dir).glob('best_*.pth'), *Path(runner.work_dir).glob('last_checkpoint')]
            if earlier:  # else a kill has left a first one alone, which this run will write again
                earlier = [*Path(self.out_dir).glob(self.filename_tmpl.format('*')), *earlier]
            if runner.iter == 0 and earlier:
                aside = Path(self.out_dir, f'before_{runner.timestamp}')
                aside.mkdir()
                for file in earlier:
                    file.rename(aside / file.name)
                names = ', '.join(sorted(file.name for file in earlier))
                runner.logger.warning(f'{runner.work_dir} holds an earlier run, whose {names} are now in {aside}')
        if runner.iter > 0 and validation_is_due(runner):
            self.last_ckpt = runner.message_hub.runtime_info.get('last_ckpt')  # to be written again if it is the best
            if runner.message_hub.runtime_info.get('last_validation') != runner.iter:
                runner.logger.info('The run was interrupted before the end of this validation, which is repeated:')
                runner.val_loop.run()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        name, classes = runner._load_from or latest_checkpoint(runner.work_dir), classes_of(checkpoint)
        for own in classes_of_loops(runner) if classes else ():
            require_same_classes(name, own, classes)
        known = checkpoint.get('message_hub', {}).get('runtime_info', {})
        self.learnt = set(known.get('learnt_masks', ()))
        for key in known:
            if key.startswith(('last_ckpt', 'best_ckpt')) and known[key]:
                known[key] = moved_along(known[key], Path(name).parent)

    def before_test(self, runner: Runner) -> None:
        self._tell_learnt(runner, runner._test_loop)

    def _tell_learnt(self, runner: Runner, loop: BaseLoop | None) -> None:
        dataset = loop and loop.dataloader.dataset
        if not self.learnt or not isinstance(dataset, SegDatasetWrapper):
            return
        infos = [info for info in map(dataset.get_data_info, range(len(dataset))) if has_mask(info)]
        digests = contents(read_digest, [info['img_path'] for info in infos])
        both = [info['sample_id'] for info, digest in zip(infos, digests, strict=True) if digest in self.learnt]
        if both:
            runner.logger.warning(
                f'The network has learnt {len(both)} of the {len(infos)} true masks that it is measured on, and is '
                f'better on them than on others: {first_few(both)}'
            )

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        runner.message_hub.update_info('last_validation', runner.iter)
        super().after_val_epoch(runner, metrics)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        self.last_ckpt = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        steps, outdated = [], []
        if self.max_keep_ckpts > 0:
            steps = [*(kept for kept in self.keep_ckpt_ids if kept != step), step]
            outdated = steps[: -self.max_keep_ckpts]
            # With the outdated one: where a kill keeps us from removing it, before_train of the resumed run does.
            runner.message_hub.update_info('keep_ckpt_ids', steps)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
        )
        if is_main_process():
            write_atomically(Path(runner.work_dir) / 'last_checkpoint', self.last_ckpt.encode())
            for old in outdated:
                Path(self.out_dir, self.filename_tmpl.format(old)).unlink(missing_ok=True)
        self.keep_ckpt_ids = deque(steps[len(outdated) :])


def latest_checkpoint(work_dir: str) -> str | None:
    """mmengine's `find_latest_checkpoint`, but in a work dir that was copied or moved the file there."""
    path = find_latest_checkpoint(work_dir)
    return path and moved_along(path, Path(work_dir))


def moved_along(path: str, folder: Path) -> str:
    """The file of that name in the folder, or the path itself where the folder has none."""
    here = folder / Path(path).name
    return str(here) if here.is_file() else path


def classes_of_loops(runner: Runner) -> list[Sequence[str]]:
    """Those of the data sets of the loops that are built."""
    loops = [loop for loop in (runner._train_loop, runner._val_loop, runner._test_loop) if isinstance(loop, BaseLoop)]
    metainfos = [getattr(loop.dataloader.dataset, 'metainfo', {}) for loop in loops]
    return [metainfo['classes'] for metainfo in metainfos if 'classes' in metainfo]


def validation_is_due(runner: Runner) -> bool:
    """Whether the training loop validates after the epoch, or iteration, that was trained last."""
    loop = runner.train_loop
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    now, end = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
    return runner.val_loop is not None and now >= loop.val_begin and (now % loop.val_interval == 0 or now == end)
