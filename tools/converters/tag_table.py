"""Writing the tag table that `aream_mm.datasets.tags.read_tag_table` reads."""

import csv
import io
import shutil
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path

from aream_mm.datasets.tags import HEADER, class_name, refuse, refuse_collisions
from aream_mm.files import write_atomically


def write_tag_table(path: str | Path, tags: Mapping[str, Iterable[str]]) -> None:
    """Write the names of the classes in each image, sorted by image and, within a row, by name.

    Another table that is there stays beside it, as `<name>.1` or the next number, and a line says so.

    Raises:
        ValueError: names that the table cannot hold, or images of one id with different tags.
    """
    path, names = Path(path), sorted({name for names in tags.values() for name in names})
    bad = [repr(name) for name in names if name != class_name(name) or ';' in name or not is_line(name)]
    refuse(path, "class names of one line in UTF-8, without ';' or white space around them", bad)
    refuse(path, 'tags without background, which is in every image', [n for n in names if n == 'background'])
    bad = [repr(image) for image in tags if not is_line(image)]
    refuse(path, 'image names of one line in UTF-8', bad)
    refuse_collisions(path, tags)
    content = io.StringIO()
    writer = csv.writer(content, lineterminator='\n')
    writer.writerow(HEADER)
    writer.writerows([image, ';'.join(sorted(set(tags[image])))] for image in sorted(tags))
    table = content.getvalue().encode()
    if path.is_file() and path.read_bytes() != table:
        copy = next(copy for i in count(1) if not (copy := path.with_name(f'{path.name}.{i}')).exists())
        shutil.copy2(path, copy)
        print(f'{path}: what was there is now {copy}')
    write_atomically(path, table)


def is_line(text: str) -> bool:
    """Whether the text is one line, not empty, of characters that UTF-8 has (a file name may hold others)."""
    return len(text.splitlines()) == 1 and text == text.encode(errors='ignore').decode()
