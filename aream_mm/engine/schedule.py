"""TimmCosineLR: the learning rates of DeiT's program, and of those that train with it."""

import math

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from torch.optim import Optimizer

from aream_mm.checks import require_numbers, require_whole
from aream_mm.registry import PARAM_SCHEDULERS


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
