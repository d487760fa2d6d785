"""InvalidLossHook: a loss that is no number stops the training, with the images that gave it."""

import math

from mmengine.hooks import Hook
from mmengine.runner import Runner

from aream_mm.datasets.images import first_few
from aream_mm.engine.checkpoints import latest_checkpoint
from aream_mm.engine.warm_up import bare
from aream_mm.registry import HOOKS


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
