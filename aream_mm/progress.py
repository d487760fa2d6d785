"""How far a loop is, on the main process alone."""

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta

from mmengine.dist import is_main_process
from mmengine.utils import track_iter_progress

INTERVAL = 30  # seconds between two lines


def progress(items: Iterable, number: int | None = None) -> Iterable:
    """The items, while a bar shows how many of `number` (default: their length) are done; in a file or pipe, a line."""
    number = len(items) if number is None else number
    if not is_main_process():
        return items
    return track_iter_progress((items, number)) if sys.stdout.isatty() else lines(items, number)


def lines(items: Iterable, number: int) -> Iterator:
    start = said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - said >= INTERVAL:
            left = timedelta(seconds=round((now - start) * (number - done) / done))
            print(f'{done} of {number}, {left} left', flush=True)
            said = now
