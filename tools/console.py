"""What the terminal shows of a run: before the first step what begins, on what, and where all the rest is logged."""

import logging
from logging.handlers import MemoryHandler

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.optim import BaseOptimWrapper, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from aream_mm.datasets.images import first_few
from aream_mm.engine.training import bare

# mmengine's warnings of each weight that is not trained, and of its own old names
OF_NO_USE = ('is skipped since its requires_grad=False', 'deprecated in future')

logging.captureWarnings(True)
warned = MemoryHandler(capacity=1000, flushLevel=logging.CRITICAL)  # until there is a log file
logging.getLogger('py.warnings').addHandler(warned)


class FirstScreen(Hook):
    """Says what begins. As a filter of the terminal's handler it lets nothing but warnings pass until then."""

    priority = 'LOWEST'

    def __init__(self, log_file: str) -> None:
        self.log_file = log_file
        self.begun = False

    def filter(self, record: logging.LogRecord) -> bool:
        return self.begun or (
            record.levelno >= logging.WARNING and not any(text in record.getMessage() for text in OF_NO_USE)
        )

    def before_train(self, runner: Runner) -> None:
        loop, size = runner.train_loop, runner.train_dataloader.batch_size
        trained = sum(weight.numel() for weight in runner.model.parameters() if weight.requires_grad)
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        done, end, unit = (loop.epoch, loop.max_epochs, 'epochs') if by_epoch else (loop.iter, loop.max_iters, 'steps')
        steps = f'{end} {unit} in batches of {size}' + f' on each of {get_world_size()} processes' * (
            get_world_size() > 1
        )
        steps += f', {done} of them are done' * (done > 0)
        steps += f', {trained / 1e6:.1f} M weights; the time left is the eta of each line below'
        self.begin(runner, 'Training', runner.train_dataloader, steps)
        if done >= end:
            longer = f'train_cfg.max_{"epochs" if by_epoch else "iters"}'
            runner.logger.warning(f'Nothing is left to train, as all {end} {unit} are done; raise {longer} to go on')

    def before_test(self, runner: Runner) -> None:
        self.begin(runner, 'Testing', runner.test_dataloader)

    def begin(self, runner: Runner, what: str, loader: DataLoader, *more: str) -> None:
        self.begun = True
        model, classes = bare(runner.model), getattr(loader.dataset, 'metainfo', {}).get('classes', ())
        parts = [type(part).__name__ for part in (model, getattr(model, 'backbone', None)) if part is not None]
        lines = [
            f'{what} {" on ".join(parts)}',
            f'{len(loader.dataset)} photographs of {len(classes)} classes: {first_few(list(classes))}',
            *more,
            f'results: {runner.work_dir}',
            f'full log: {self.log_file}',
        ]
        runner.logger.info('\n    '.join(lines))


class QuietRunner(Runner):
    """mmengine's Runner, whose log file has all it logs and what libraries warn of, and whose terminal has little."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        (terminal, *files) = logger.handlers  # the main process alone has a file
        self.first_screen = FirstScreen(files[0].baseFilename if files else '')
        terminal.addFilter(self.first_screen)
        warned.setTarget(files[0] if files else logging.NullHandler())
        warned.flush()
        warned.capacity = 1  # from here on at once
        return logger

    def build_optim_wrapper(self, optim_wrapper: Optimizer | OptimWrapper | dict) -> BaseOptimWrapper:
        """mmengine's, but its groups of weights are plain dicts, as torch.compile wants them."""
        built = super().build_optim_wrapper(optim_wrapper)
        if isinstance(built, OptimWrapper):
            built.optimizer.param_groups[:] = map(dict, built.optimizer.param_groups)
        return built

    def train(self) -> nn.Module:
        self.register_hook(self.first_screen)
        return super().train()

    def test(self) -> dict[str, float]:
        self.register_hook(self.first_screen)
        return super().test()
