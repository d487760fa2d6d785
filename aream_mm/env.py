"""`python -m aream_mm.env`: what a report of a bug should say of the machine and of what is installed."""

from mmengine.utils.dl_utils import collect_env

from aream_mm import __version__, libraries

if __name__ == '__main__':
    versions = {name: version for names in libraries.find().values() for name, version in names.items()}
    for name, value in (collect_env() | dict(aream_mm=__version__) | versions).items():
        print(f'{name}: {value}')
