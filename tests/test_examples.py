"""The examples in the docstrings of the public tensor functions do what they show."""

import doctest

import pytest

from aream_mm.evaluation import sweep
from aream_mm.models import aream, cam, par

EXAMPLES = {
    cam: ('propagate', 'normalize', 'reliable_masks'),
    aream: ('pair_labels', 'affinity_loss', 'layer_entropy'),
    par: ('PAR',),
    sweep: ('threshold_sweep',),
}


@pytest.mark.parametrize(('module', 'name'), [(module, name) for module, names in EXAMPLES.items() for name in names])
def test_the_example_does_what_it_shows(module, name):
    (test,) = (test for test in doctest.DocTestFinder().find(getattr(module, name), name, module) if test.examples)
    told = []
    doctest.DocTestRunner().run(test, out=told.append)
    assert not told, ''.join(told)
