"""The libraries that aream_mm stands on: OpenMMLab's own, or the maintained forks of them under the same names."""

from importlib.metadata import PackageNotFoundError, packages_distributions, version

from packaging.version import Version

OLDEST = dict(torch='2.1', timm='1.0.17', mmengine='0.10.7', mmcv='2.1.0', mmseg='1.2.2', mmpretrain='1.2.0')
INSTALL = (
    "With torch 2.1 and numpy below 2 there are OpenMMLab's own: pip install mmengine==0.10.7 mmcv-lite==2.1.0 "
    'mmsegmentation==1.2.2 mmpretrain==1.2.0 ftfy regex; with any newer torch their forks: pip install onedl-mmengine '
    'onedl-mmcv onedl-mmsegmentation onedl-mmpretrain'
)
# Names to pip. Python 3.10 does not know which modules torch and timm have; these have the names of their modules.
NAMES = {module: module for module in OLDEST}
NAMES.update({module: names[0] for module, names in packages_distributions().items() if module in OLDEST})


def installed(module: str) -> str | None:
    """The version, or None where there is none."""
    try:
        return version(NAMES[module])
    except PackageNotFoundError:
        return None


def require_libraries() -> None:
    """
    Raises:
        ImportError: libraries that are missing or too old, all of them.
    """
    odd = [
        f'{module} {oldest} or newer, got {installed(module)}'
        for module, oldest in OLDEST.items()
        if Version(installed(module) or '0') < Version(oldest)
    ]
    if odd:
        raise ImportError(f'aream_mm: expected {"; ".join(odd)}. {INSTALL}')
