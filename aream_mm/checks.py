"""Checks of settings: what is refused names the setting, what was expected, and what it was."""

import sys
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any


def require(name: str, value: Any, expected: str, good: bool) -> None:
    if not good:
        raise ValueError(f'{name}: expected {expected}, got {value!r}')


def numbers(values: Any, low: float = 0, high: float = sys.float_info.max, kind: type = Real) -> bool:
    """Whether it is a sequence of numbers in low..high, and not of True and False."""
    listed = isinstance(values, Sequence) and not isinstance(values, str)
    return listed and all(isinstance(v, kind) and not isinstance(v, bool) and low <= v <= high for v in values)


def require_numbers(owner: str, low: float = 0, kind: type = Real, **settings: Any) -> None:
    """Raise a ValueError unless each of the owner's settings is a number of this kind, `low` or more."""
    for name, value in settings.items():
        whole = 'whole ' if kind is Integral else ''
        require(f'{owner}.{name}', value, f'a {whole}number from {low} on', numbers([value], low, kind=kind))


def require_whole(owner: str, low: int = 0, **settings: Any) -> None:
    require_numbers(owner, low, Integral, **settings)


def require_switches(owner: str, **settings: Any) -> None:
    for name, value in settings.items():
        require(f'{owner}.{name}', value, 'True or False', isinstance(value, bool))
