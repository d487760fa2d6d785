"""What is in the files of a data set: each is read to its end once, and again when it has changed."""

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aream_mm.datasets.pictures import THREADS, open_picture
from aream_mm.progress import progress

MADE_FROM = 'aream_mm'  # the text of a mask's PNG that tells what the mask was made from
CACHE = 'contents-1.sqlite'  # another number when a reader below returns something else
SETTLED = 0.1  # seconds after a change for which another one might get the same time


def read_mask(path: str) -> dict[str, Any]:
    """The `ids` in a mask, as mmseg's `LoadAnnotations` reads them, and `made_from`, {} but for `PseudoMaskHook`'s.

    Where the mask cannot be read to its end there is `problem` instead.
    """
    try:
        with open_picture(path) as mask:
            ids = np.flatnonzero(mask.histogram()) // (255 if mask.mode == '1' else 1)
            return dict(ids=ids.tolist(), made_from=dict(json.loads(mask.info.get(MADE_FROM, '{}'))))
    except Exception as error:  # decoders raise whatever they like
        return dict(problem=str(error) or type(error).__name__)


def read_cam(path: str) -> dict[str, str]:
    """What a stored CAM was made from; {} where there is none that can be read."""
    try:
        with np.load(path) as stored:
            return json.loads(str(stored['made_from']))
    except Exception:  # a broken archive raises whatever it likes
        return {}


def read_digest(path: str) -> str:
    """Of all bytes of the file, so that a copy has the same."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def contents(read: Callable[[str], Any], paths: Sequence[str | Path]) -> list[Any]:
    """`read` of each file, from a cache where the file is as it was when it was read.

    The cache is a data base beside torch's downloads ($TORCH_HOME, else ~/.cache/torch). A file is as it was while
    inode, size and times are the same, among them that of the last change to the inode, which no program sets back.
    Without a place for the cache all files are read.

    Args:
        read: one of the readers above, which returns what JSON can hold.
        paths: of the files.
    """
    keys = [(read.__name__, os.path.abspath(path), stamp(path)) for path in paths]
    query = 'SELECT fact FROM facts WHERE read = ? AND path = ? AND stamp = ?'
    with contextlib.closing(open_cache()) as cache:
        found = [cache.execute(query, key).fetchone() for key in keys]
        facts = [json.loads(row[0]) if row else None for row in found]
        unread = [i for i, row in enumerate(found) if row is None]
        if unread:
            with ThreadPoolExecutor(THREADS) as pool:
                results = progress(pool.map(read, (keys[i][1] for i in unread)), len(unread))
                for i, fact in zip(unread, results, strict=True):
                    facts[i] = fact
            rows = [(*keys[i], json.dumps(facts[i])) for i in unread if keys[i][2]]
            with contextlib.suppress(sqlite3.Error), cache:  # a full disk
                cache.executemany('INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)', rows)
    return facts


def stamp(path: str | Path) -> str | None:
    """What changes when the file does; None where that cannot be told, or there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    changed = max(status.st_mtime, status.st_ctime)
    if changed > time.time() - SETTLED:
        return None
    return f'{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}'


def open_cache() -> sqlite3.Connection:
    table = 'CREATE TABLE IF NOT EXISTS facts (read, path, stamp, fact, PRIMARY KEY (read, path))'
    try:
        folder = Path(torch.hub.get_dir(), 'aream_mm')
        folder.mkdir(parents=True, exist_ok=True)
        cache = sqlite3.connect(folder / CACHE)
        cache.execute(table)
    except (OSError, sqlite3.Error):  # nowhere to write, or no data base
        cache = sqlite3.connect(':memory:')
        cache.execute(table)
    return cache
