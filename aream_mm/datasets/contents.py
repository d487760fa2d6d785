"""What is in the files of a data set: each is read to its end once, and again when it has changed."""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aream_mm.datasets.images import THREADS, open_image
from aream_mm.progress import progress

MADE_FROM = 'aream_mm'  # the text of a mask's PNG that tells what the mask was made from
CACHE = 'aream_mm_contents_2.sqlite'  # another number when a reader returns something else
SETTLED = 0.1  # seconds after a change in which another one may get the same time


def read_mask(path: str) -> dict[str, Any]:
    """`mode`, `size`, `ids` as mmseg loads them, their `colours`, `made_from` ({} if not ours); or a `problem`."""
    found = {}
    try:
        with open_image(path) as mask:
            found.update(mode=mask.mode, size=mask.size)
            ids = np.flatnonzero(mask.histogram()) // (255 if mask.mode == '1' else 1)
            palette = mask.getpalette() or []
            found.update(ids=ids.tolist(), colours=[palette[3 * i : 3 * i + 3] for i in ids])
            found.update(made_from=dict(json.loads(mask.info.get(MADE_FROM, '{}'))))
    except Exception as error:  # decoders raise whatever they like
        found['problem'] = str(error) or type(error).__name__
    return found


def read_digest(path: str) -> str:
    """That of all bytes of the file, so that a copy has the same."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def contents(read: Callable[[str], Any], paths: Sequence[str | Path | None]) -> list[Any]:
    """What one of the readers above finds in each file, from a cache where the file is as it was when it was read.

    That is where inode, size and times are the same, among them that of the last change to the inode, which no program
    can set. The cache lies beside torch's downloads ($TORCH_HOME, else ~/.cache/torch); without it all files are read.
    """
    keys = [(read.__name__, os.path.abspath(path or ''), stamp(path or '')) for path in paths]
    if not keys:
        return []
    facts = {}
    with suppress(OSError, sqlite3.Error), closing(open_cache()) as cache:
        for key in keys:
            if row := cache.execute('SELECT fact FROM facts WHERE read = ? AND path = ? AND stamp = ?', key).fetchone():
                facts[key] = json.loads(row[0])
    if unread := list({key: None for key in keys if key not in facts}):
        with ThreadPoolExecutor(THREADS) as pool:
            results = progress(pool.map(read, (path for _, path, _ in unread)), len(unread))
            facts.update(zip(unread, results, strict=True))
        with suppress(OSError, sqlite3.Error), closing(open_cache()) as cache, cache:
            rows = [(*key, json.dumps(facts[key])) for key in unread if key[2]]
            cache.executemany('INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)', rows)
    return [facts[key] for key in keys]


def stamp(path: str | Path) -> str | None:
    """What changes when the file does; None where there is no file, or one so new that this cannot be relied on."""
    with suppress(OSError):
        status = os.stat(path)
        if max(status.st_mtime, status.st_ctime) < time.time() - SETTLED:
            return f'{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}'
    return None


def open_cache() -> sqlite3.Connection:
    folder = Path(torch.hub.get_dir())
    folder.mkdir(parents=True, exist_ok=True)
    cache = sqlite3.connect(folder / CACHE)
    cache.execute('CREATE TABLE IF NOT EXISTS facts (read, path, stamp, fact, PRIMARY KEY (read, path))')
    return cache
