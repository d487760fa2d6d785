"""A progress bar, on the main process alone."""

from collections.abc import Iterable

from mmengine.dist import is_main_process
from mmengine.utils import track_iter_progress


def progress(items: Iterable, number: int | None = None) -> Iterable:
    """The items, while a bar shows how many of `number` (default: their length) are done."""
    return track_iter_progress((items, len(items) if number is None else number)) if is_main_process() else items
