"""Stands for mmcv's compiled module in the test environment: mmsegmentation imports mmcv.ops, which is not used here.

`make test-openmmlab` copies it into mmcv-lite.
"""

from collections.abc import Callable


def __getattr__(name: str) -> Callable:
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*arguments: object, **options: object) -> None:
        raise RuntimeError(f'mmcv-lite has no compiled {name}')

    return missing
