"""The libraries that aream_mm stands on: OpenMMLab's own, or the maintained forks of them under the same names."""

from importlib.metadata import PackageNotFoundError, packages_distributions, version

from packaging.version import Version

OLDEST = dict(torch='2.1', timm='1.0.17', mmengine='0.10.7', mmcv='2.1.0', mmseg='1.2.2', mmpretrain='1.2.0')
INSTALL = (
    "With torch 2.1 and numpy below 2 there are OpenMMLab's own: pip install mmengine==0.10.7 mmcv-lite==2.1.0 "
    'mmsegmentation==1.2.2 mmpretrain==1.2.0 ftfy regex; with any newer torch their forks: pip install onedl-mmengine '
    'onedl-mmcv onedl-mmsegmentation onedl-mmpretrain'
)


def distribution_of(module: str) -> str:
    """The name by which a module was installed."""
    return packages_distributions().get(module, [module])[0]


def installed_versions() -> dict[str, str | None]:
    """Version of each library, by the name of its module; None where it is not installed."""
    found = dict.fromkeys(OLDEST)
    for module in found:
        try:
            found[module] = version(distribution_of(module))
        except PackageNotFoundError:
            pass
    return found


def require_libraries() -> None:
    """
    Raises:
        ImportError: libraries that are missing or too old, all of them.
    """
    odd = [
        f'{module} {OLDEST[module]} or newer, got {found or "none"}'
        for module, found in installed_versions().items()
        if found is None or Version(found) < Version(OLDEST[module])
    ]
    if odd:
        raise ImportError(f'aream_mm: expected {"; ".join(odd)}. {INSTALL}')
