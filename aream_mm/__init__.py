"""AReAM for MMSegmentation: pixel masks from photographs and tags, on mmengine's Runner (arXiv 2305.03112)."""

from aream_mm import libraries
from aream_mm.version import __version__

__all__ = ['__version__']

libraries.require(_found := libraries.find())
libraries.import_yapf()

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

# `_base_ = 'mmseg::…'` looks for a distribution by name; the maintained forks have other names than OpenMMLab's own.
MODULE2PACKAGE.update({module: name for module in ('mmseg', 'mmpretrain') for name in _found[module]})
# `_base_ = 'aream_mm::…'` looks beside a module where no distribution has its name: so that a clone serves as well.
MODULE2PACKAGE['aream_mm'] = 'aream_mm.version'
