"""BFloat16OptimWrapper: mixed precision without a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast
from torch import nn

from aream_mm.registry import OPTIM_WRAPPERS


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
