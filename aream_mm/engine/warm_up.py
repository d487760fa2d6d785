"""WarmUpHook: classification alone at first, because a CAM that has learnt nothing teaches nothing."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from aream_mm.checks import require_switches, require_whole
from aream_mm.registry import HOOKS


@HOOKS.register_module()
class WarmUpHook(Hook):
    """Keeps the attention loss of a `CAMSegmentor` off until the warm-up has ended; holds when a run is resumed.

    Args:
        end: epochs (or iterations) of classification alone.
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


def bare(model: nn.Module) -> nn.Module:
    """The model inside a distributed wrapper, or the model."""
    return model.module if is_model_wrapper(model) else model
