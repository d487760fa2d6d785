"""Writing files so that an interruption leaves no half of one, and reading lists of names."""

import os
from pathlib import Path

from mmengine.fileio import list_from_file


def read_lines(path: str | Path, encoding: str = 'utf-8') -> list[str]:
    """The lines of a text file, without white space around them.

    Raises:
        ValueError: the text is in another encoding.
    """
    try:
        return [line.strip() for line in list_from_file(path, encoding=encoding)]
    except UnicodeDecodeError as error:
        raise ValueError(f'{path}: expected a text in UTF-8, got {error}') from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name and rename, so that a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}.tmp')
    temporary.write_bytes(content)
    os.replace(temporary, path)
