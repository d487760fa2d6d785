"""AReAM for MMSegmentation: pixel masks from photographs and tags, on mmengine's Runner (arXiv 2305.03112)."""

from importlib.metadata import packages_distributions

from mmengine.config.utils import MODULE2PACKAGE

from aream_mm.version import __version__

__all__ = ['__version__']

# `_base_ = 'mmseg::…'` looks for a distribution by name; the maintained forks have other names than OpenMMLab's own.
for _module, _distributions in packages_distributions().items():
    if _module in ('mmseg', 'mmpretrain'):
        MODULE2PACKAGE[_module] = _distributions[0]
