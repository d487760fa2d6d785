"""`python -m aream_mm.env`: what a report of a bug should say of the machine and of what is installed."""

from mmengine.utils.dl_utils import collect_env

from aream_mm import __version__
from aream_mm.libraries import distribution_of, installed_versions

if __name__ == '__main__':
    found = {distribution_of(module): version for module, version in installed_versions().items()}
    for name, value in (collect_env() | dict(aream_mm=__version__) | found).items():
        print(f'{name}: {value}')
