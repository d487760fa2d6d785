"""Writing files so that an interruption leaves no half of one."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write to `<name>.tmp`, wait for the disk, and rename: a reader sees the whole file or the one before it.

    A process that is killed leaves the temporary file at most, which the next write of the same file replaces.

    Raises:
        OSError: what the system says, such as a disk that is full, with the file's name; nothing is left of the new
            file, and an older one of this name stays.
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
