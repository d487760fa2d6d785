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
    """Write to `<name>.tmp`, wait for the disk, and rename: a reader sees the whole file or the one before it.

    A process that is killed leaves the temporary file at most, which the next write of the same file replaces.

    Raises:
        OSError: what the system says, such as a disk that is full, with the file's name; an older file stays.
    """
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # some file systems say only here that they are full
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        reason = f'{error.strerror}, when {len(content)} bytes were to be written'
        raise OSError(error.errno, reason, str(path)) from error
