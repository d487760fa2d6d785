"""Where tags come from: the tag table, or the `cls_labels.npy` file of the field."""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import numpy as np
from PIL import Image

from aream_mm import safe_pickle
from aream_mm.datasets.images import first_few

HEADER = ['image', 'tags']
# Of the formats that Pillow reads and that are images; it knows films and tables of numbers too.
IMAGE_ENDINGS = tuple(
    ending
    for ending, name in Image.registered_extensions().items()
    if name in Image.OPEN and Image.MIME.get(name, '').startswith('image/')
)


def refuse(where: str | Path, expected: str, offenders: Sequence[str]) -> None:
    """Raise a ValueError that names the first offenders and counts them, if there are any."""
    if offenders:
        raise ValueError(f'{where}: expected {expected}, not so for {len(offenders)}: {first_few(offenders)}')


def refuse_unknown(where: str | Path, tags: Mapping[str, Iterable[str]], classes: Sequence[str]) -> None:
    """Raise a ValueError if an image has a tag that is not among the classes."""
    known, unknown = set(classes), defaultdict(list)
    for image, names in tags.items():
        for name in names:
            if name not in known:
                unknown[name].append(image)
    offenders = [f'{name!r} (images: {len(images)}, first {images[0]!r})' for name, images in unknown.items()]
    refuse(where, f'tags among {", ".join(map(repr, classes))}', offenders)


def require_same_classes(where: str, expected: Sequence[str], got: Sequence[str]) -> None:
    """Raise a ValueError that names the first class that differs between the config's, `expected`, and others."""
    for number, (ours, theirs) in enumerate(zip_longest(expected, got)):
        if ours != theirs:
            raise ValueError(
                f'{where}: expected the {len(expected)} classes of the config in their order, got {len(got)}, of which '
                f'id {number} is the first that differs: expected {ours!r}, got {theirs!r}'
            )


def image_id(image: str) -> str:
    """The path without the ending of an image, the `sample_id` of the data set wrappers: 'cats/1.jpg' → 'cats/1'.

    An id that has no such ending stays ('IMG.2007'). Accented letters become one character each (Unicode's NFC), since
    some systems store file names with two.
    """
    path = PurePosixPath(normalize('NFC', image))
    return str(path.with_suffix('') if path.suffix.lower() in IMAGE_ENDINGS else path)


def class_name(name: str) -> str:
    """The name without white space around it, and as `image_id` with one character for an accented letter."""
    return normalize('NFC', name.strip())


def read_tag_table(path: str | Path) -> dict[str, list[str]]:
    """Read a tag table: the path of each image below its image folder → names of the classes in it.

    The table is a CSV in UTF-8 with the header `image,tags` and one row per image, whose tags are joined by `;`:
    `cats/0001.jpg,cat;sofa`. An image without tags has an empty cell.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is something else, or has two rows for one image.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'tag table: expected a tags.csv, got {str(path)!r} which does not exist')
    advice = 'tools/converters/tags.py makes such a table from other forms of tags'
    try:
        with open(path, newline='', encoding='utf-8-sig') as file:
            rows = list(csv.reader(file, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f'{path}: expected a CSV file in UTF-8, got {error}; {advice}') from error
    header = rows[0] if rows else []
    if header != HEADER:
        raise ValueError(f'{path}: expected the header {",".join(HEADER)!r}, got {",".join(header)[:80]!r}; {advice}')
    numbered = [(number, row) for number, row in enumerate(rows[1:], start=2) if row]
    bad = [f'row {number} {row}' for number, row in numbered if len(row) != len(HEADER) or not row[0]]
    refuse(path, 'an image and its tags in each row', bad)
    counts = Counter(image for _, (image, _) in numbered)
    refuse(path, 'one row for each image', [f'{image} ({count} rows)' for image, count in counts.items() if count > 1])
    tags = {image: [name for name in map(class_name, cell.split(';')) if name] for _, (image, cell) in numbered}
    refuse_collisions(path, tags)
    return tags


def refuse_collisions(where: str | Path, tags: Mapping[str, Iterable[str]]) -> None:
    """Raise a ValueError if images with the same `image_id` have different tags."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault(image_id(image), image), image) for image in tags]
    different = [f'{one} and {other}' for one, other in pairs if set(tags[one]) != set(tags[other])]
    refuse(where, 'the same tags for images that differ in their ending alone', different)


def load_tag_file(path: str | Path, classes: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Read a tag table (`.csv`) or a `cls_labels.npy`: `image_id` → multi-hot float32 vector (C,) over the classes.

    Args:
        path: of the file.
        classes: all that the file may have, in the order of the columns of a `.npy`; C leaves 'background' out. None
            keeps the columns of a `.npy`, whatever they are.

    Raises:
        FileNotFoundError: no such file.
        ValueError: tags of other classes, other numbers than 0 and 1, two rows for one image; a file that is no table
            as `read_tag_table` describes, and no pickled dict of arrays alone.
    """
    ending = Path(path).suffix.lower()
    if ending not in ('.csv', '.npy') or (ending == '.csv' and classes is None):
        raise ValueError(f'tag file {str(path)!r}: expected a .csv with the classes, or a .npy; got classes={classes}')
    if classes is not None:
        classes = [class_name(name) for name in classes if name != 'background']
    if ending == '.csv':
        table = read_tag_table(path)
        refuse_unknown(path, table, classes)
        return {image_id(image): np.array([c in names for c in classes], np.float32) for image, names in table.items()}
    vectors = load_cls_labels(path)
    refuse(path, '0 or 1 for each class', [image for image, v in vectors.items() if not np.isin(v, (0, 1)).all()])
    if classes is not None:
        wrong = [image for image, vector in vectors.items() if vector.shape != (len(classes),)]
        if wrong:
            what = f'expected {len(classes)} tags in each vector of {path}'
            raise ValueError(f'tag file: {what}, missing for {len(wrong)}: {first_few(wrong)}')
    return vectors


def load_cls_labels(path: str | Path) -> dict[str, np.ndarray]:
    if not Path(path).is_file():
        raise FileNotFoundError(f'tag file: expected a cls_labels.npy, got {str(path)!r} which does not exist')
    try:
        with open(path, 'rb') as file:
            major, _ = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
            if not dtype.hasobject or shape != ():
                raise ValueError(f'{dtype} {shape}')
            table = safe_pickle.load(file).item()
        return {normalize('NFC', str(key)): np.asarray(value, np.float32) for key, value in table.items()}
    except Exception as error:  # a broken pickle raises whatever it likes
        raise ValueError(f'tag file {str(path)!r}: expected a dict from image id to array, got {error}') from error
