"""The libraries that aream_mm stands on: OpenMMLab's own, or the maintained forks of them under the same names."""

import os
from importlib.metadata import distributions, version
from pickle import UnpicklingError
from tempfile import TemporaryDirectory
from unittest.mock import patch

from packaging.version import Version

OLDEST = dict(torch='2.1', timm='1.0.17', mmengine='0.10.7', mmcv='2.1.0', mmseg='1.2.2', mmpretrain='1.2.0')
INSTALL = (
    "With torch 2.1 and numpy below 2 there are OpenMMLab's own: pip install mmengine==0.10.7 mmcv==2.1.0 "
    'mmsegmentation==1.2.2 mmpretrain==1.2.0 ftfy regex; with any newer torch their forks: pip install onedl-mmengine '
    'onedl-mmcv onedl-mmsegmentation onedl-mmpretrain'
)


def find() -> dict[str, dict[str, str]]:
    """Version by the name to pip, of each library by that of its module."""
    found = {module: {} for module in OLDEST}
    for distribution in distributions():  # as packages_distributions() from Python 3.11 on
        declared = (distribution.read_text('top_level.txt') or '').split()
        for module in OLDEST.keys() & (declared or {file.parts[0] for file in distribution.files or ()}):
            found[module][distribution.name] = version(distribution.name)
    return found


def require(found: dict[str, dict[str, str]]) -> None:
    """
    Raises:
        ImportError: libraries that are missing, too old or installed twice, all of them.
    """
    odd = [
        f'{module} {oldest} or newer, got {" and ".join(map("==".join, found[module].items())) or "none"}'
        for module, oldest in OLDEST.items()
        if len(found[module]) != 1 or Version(*found[module].values()) < Version(oldest)
    ]
    if odd:
        raise ImportError(f'aream_mm: expected one {"; one ".join(odd)}. {INSTALL}')


def import_yapf() -> None:
    """mmengine's layout of configs, whose cache another process, such as another GPU's, may be writing just now."""
    try:
        import yapf
    except (EOFError, UnpicklingError):
        with TemporaryDirectory() as folder, patch.dict(os.environ, XDG_CACHE_HOME=folder):
            import yapf  # noqa: F401
