"""AReAM for MMSegmentation: pixel masks from photographs and tags, both stages on mmengine's Runner (arXiv 2305.03112)."""

from importlib.metadata import packages_distributions

from mmengine.config.utils import MODULE2PACKAGE

__version__ = '0.1.0'

# `_base_ = 'mmseg::…'` looks for a distribution by name, and the maintained forks go by other names than OpenMMLab's own.
_DISTRIBUTIONS = packages_distributions()
for _module in ('mmseg', 'mmpretrain'):
    if _module in _DISTRIBUTIONS:
        MODULE2PACKAGE[_module] = _DISTRIBUTIONS[_module][0]
