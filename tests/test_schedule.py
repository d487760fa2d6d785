"""TimmCosineLR: the rates of every epoch, against the authors' and timm's own, and through an interruption."""

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from timm.scheduler import CosineLRScheduler
from torch import nn

from aream_mm.engine import TimmCosineLR

EPOCHS = 60


def optimizer(*rates):
    groups = [dict(params=[nn.Parameter(torch.zeros(1))], lr=rate) for rate in rates]
    return torch.optim.SGD(groups, lr=1.0)


def rates_of(scheduler, optimizer, epochs):
    rates = []
    for _ in range(epochs):
        rates.append([group['lr'] for group in optimizer.param_groups])
        scheduler.step()
    return np.array(rates)


@pytest.mark.parametrize(('warm_up', 'eta_min'), [(5, 1e-5), (1, 1e-6), (0, 0.0)])
def test_the_rates_are_those_of_timm_stepped_after_each_epoch(warm_up, eta_min):
    ours, theirs = optimizer(6.25e-5, 6.25e-4), optimizer(6.25e-5, 6.25e-4)
    scheduler = CosineLRScheduler(
        theirs, t_initial=EPOCHS, lr_min=eta_min, warmup_t=warm_up, warmup_lr_init=1e-6 if warm_up else 0
    )
    expected = []
    for epoch in range(EPOCHS):
        expected.append([group['lr'] for group in theirs.param_groups])
        scheduler.step(epoch)
    found = rates_of(TimmCosineLR(ours, EPOCHS, warm_up, eta_min=eta_min), ours, EPOCHS)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_resumed_run_goes_on_with_the_rates():
    whole, first, second = (OptimWrapper(optimizer(6.25e-5)) for _ in range(3))
    expected = rates_of(TimmCosineLR(whole, EPOCHS, 5), whole, EPOCHS)
    interrupted = TimmCosineLR(first, EPOCHS, 5)
    rates_of(interrupted, first, 7)
    resumed = TimmCosineLR(second, EPOCHS, 5)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(interrupted.state_dict())
    np.testing.assert_allclose(rates_of(resumed, second, 10), expected[7:17], rtol=1e-12)
