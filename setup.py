"""What pyproject.toml cannot say: configs, tools and model-index.yml lie where OpenMMLab's tools look for them."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MIM = {'configs': 'configs/aream', 'tools': 'tools', 'model-index.yml': 'model-index.yml'}


class BuildWithMim(build_py):
    """Copies them to aream_mm/.mim in the wheel; links them there in a clone that is installed as it stands."""

    def run(self) -> None:
        super().run()
        mim = Path('.' if self.editable_mode else self.build_lib, 'aream_mm/.mim')
        shutil.rmtree(mim, ignore_errors=True)
        for source, inside in MIM.items():
            target = mim / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            if self.editable_mode:
                target.symlink_to(Path(source).resolve())
            elif Path(source).is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy(source, target)


setup(cmdclass=dict(build_py=BuildWithMim))
