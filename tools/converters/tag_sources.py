"""The forms in which people have tags, each read as the path of an image → names of the classes in it.

Paths have forward slashes and start below the image folder; where a source knows no file endings, they have none.
Names have no white space around them.
"""

import codecs
import csv
import io
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from multiprocessing import Pool
from pathlib import Path, PurePath, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
from labelling_tools import (
    cvat_pairs,
    is_cvat,
    is_label_studio,
    is_labelme,
    label_studio_pairs,
    photograph_of,
    photographs_of,
    read_labelme,
    roboflow_files,
)
from mmengine.utils import scandir
from mmseg.datasets import PascalVOCDataset

from aream_mm.datasets.images import files_below, first_few, open_image
from aream_mm.datasets.tags import (
    IMAGE_ENDINGS,
    class_name,
    image_id,
    load_tag_file,
    refuse,
    refuse_unknown,
)
from aream_mm.masks import IGNORE_INDEX
from aream_mm.progress import progress

Tags = dict[str, list[str]]

UNDERSTOOD = """
  a folder of VOC annotations (.xml), or of LabelMe's (.json)
  a folder of masks (.png) and no other images, with the classes in the order of their ids
  a folder of folders that are named after the classes, with the images in them; or of train, valid and test with such
  a folder of Roboflow's: _classes.csv or _annotations.coco.json, in train, valid and test or without these
  CVAT for images 1.1 (.xml); Label Studio's JSON, JSON-MIN or CSV
  COCO instances (.json)
  JSON: {"file": ["tag", …], …} or [{"image": "file", "tags": ["tag", …]}, …], the latter also as JSON lines (.jsonl)
  CSV, TSV or Excel's Unicode text (.csv, .tsv, .txt): image and tags in two columns, or one column per class
  a cls_labels.npy, with the classes in the order of its columns unless they are VOC's 20"""
VOC_CLASSES = PascalVOCDataset.METAINFO['classes'][1:]
PARALLEL_FROM = 10_000  # masks; for fewer, and for XML files, starting processes costs more time than they save
IMAGE_KEYS, TAG_KEYS = ('image', 'file', 'file_name'), ('tags', 'labels')
IMAGE_HEADERS = {*IMAGE_KEYS, 'filename', 'image_id', 'id', 'path', 'picture', 'photo'}
TAG_HEADERS = {*TAG_KEYS, 'tag', 'label', 'classes', 'class'}
DELIMITERS = {'\t': 'tab', ';': ';', ',': ','}
PRESENT, ABSENT = {'1', '1.0', 'x', 'true', 'yes', 'wahr', 'ja'}, {'0', '0.0', '', 'false', 'no', 'falsch', 'nein'}
SPLITS = {'train', 'training', 'val', 'valid', 'validation', 'test', 'testing', 'dev'}
UNLABELED = 'Unlabeled'  # Roboflow's column of the images that have no class
COCO_FIELDS = dict(
    images=dict(id=int | str, file_name=str),
    annotations=dict(image_id=int | str, category_id=int | str),
    categories=dict(id=int | str, name=str),
)


def read_tags(
    source: str | Path,
    classes: Sequence[str] | None = None,
    skip_difficult: bool = False,
    images: Path | None = None,
    first_id: int = 1,
) -> tuple[str, Tags]:
    """Read any of the forms; returns in words what the source was taken for, and its tags.

    Args:
        source: file or folder.
        classes: names of the classes without background, in the order of ids or columns where the source has those.
        skip_difficult: leave out the objects that VOC annotations call difficult.
        images: folder of the photographs, in which an annotation's own is looked for.
        first_id: of the classes in masks; 0 where there is no background.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: the source fits none of the forms, is malformed, or has tags that are not among `classes`.
    """
    source = Path(source)
    if not source.is_file() and not source.is_dir():
        raise FileNotFoundError(f'tags: expected a file or folder, got {str(source)!r} which does not exist')
    if source.is_dir():
        kind, tags = read_folder(source, classes, skip_difficult, images, first_id)
    else:
        kind, tags = read_file(source, classes, images)
    if skip_difficult and kind != 'VOC annotations':
        raise ValueError(f'{source}: expected VOC annotations, which know difficult objects, got {kind}')
    if classes is not None:
        refuse_unknown(source, tags, classes)
    return kind, tags


def read_folder(
    folder: Path, classes: Sequence[str] | None, skip_difficult: bool, images: Path | None, first_id: int
) -> tuple[str, Tags]:
    endings = {PurePath(file).suffix.lower() for file in scandir(str(folder))}
    image_endings = endings.intersection(IMAGE_ENDINGS)
    if files := list(roboflow_files(folder)):
        return "Roboflow's export", roboflow_tags(folder, files)
    files = files_below(folder)
    xml, labelme = ([file for file in files if file.lower().endswith(ending)] for ending in ('.xml', '.json'))
    if '.xml' in endings or xml and not attempt(partial(read_voc_annotation, folder, {}, False), xml[0])[1]:
        if len(xml) == 1 and is_cvat(folder / xml[0]):
            return 'CVAT for images', cvat_tags(folder / xml[0])
        return 'VOC annotations', voc_tags(folder, skip_difficult, images)
    if '.json' in endings or labelme and not attempt(partial(read_labelme, folder, {}), labelme[0])[1]:
        return 'LabelMe annotations', labelme_tags(folder, labelme, images)
    if image_endings == {'.png'}:
        return 'masks', mask_tags(folder, classes, first_id)
    if not image_endings and any(child.is_dir() for child in folder.iterdir()):
        splits = [child for child in visible_folders(folder) if child.name.casefold() in SPLITS]
        splits = [child for child in splits if visible_folders(child)]
        if splits:
            return f'{", ".join(s.name for s in splits)} with folders named after the classes', split_tags(
                folder, splits
            )
        return 'folders of images, named after the classes', class_folder_tags(folder)
    raise ValueError(not_understood(folder, f'a folder with {", ".join(sorted(endings)) or "no"} files'))


def read_file(path: Path, classes: Sequence[str] | None, images: Path | None) -> tuple[str, Tags]:
    ending = path.suffix.lower()
    if ending in ('.json', '.jsonl', '.ndjson'):
        content = read_json(path)
        if isinstance(content, dict) and content.keys() >= COCO_FIELDS.keys():
            return 'COCO instances', coco_tags(path, content)
        if is_label_studio(content):
            return 'JSON of Label Studio', label_studio_tags(path, content)
        if is_labelme(content):
            return 'a LabelMe annotation', labelme_tags(path.parent, [path.name], images)
        return f'JSON {"of tags by image" if isinstance(content, dict) else "records"}', json_tags(path, content)
    if ending in ('.csv', '.tsv', '.txt'):
        return spreadsheet_tags(path)
    if ending == '.xml':
        return 'CVAT for images', cvat_tags(path)
    if ending == '.npy':
        return 'cls_labels.npy', cls_labels_tags(path, classes)
    raise ValueError(not_understood(path, f'a {ending or "nameless"} file'))


def not_understood(source: Path, got: str) -> str:
    return f'{source}: expected one of the following, got {got}{UNDERSTOOD}'


def add_up(pairs: Iterable[tuple[str, Iterable[str]]]) -> Tags:
    """All names that come with an image, each once."""
    tags: Tags = {}
    for image, names in pairs:
        found = tags.setdefault(image, [])
        found.extend(name for name in dict.fromkeys(names) if name not in found)
    return tags


def as_image(text: str) -> str:
    """A path as people write it, with forward slashes; files on Windows may have been listed with others."""
    return str(PurePosixPath(text.strip().replace('\\', '/')))


# Folders


def read_each(read: Callable, files: list[str], folder: Path, expected: str, processes: int = 1) -> Tags:
    """`read(file)` is an image and its tags, for each of the files; those that it raises for are named together."""
    attempt_file = partial(attempt, read)
    if processes > 1:
        with Pool(processes) as pool:
            attempts = list(progress(pool.imap(attempt_file, files, chunksize=16), len(files)))
    else:
        attempts = [attempt_file(file) for file in progress(files)]
    problems = [(file, problem) for file, (_, problem) in zip(files, attempts, strict=True) if problem]
    refuse(folder, expected, [f'{file} ({problem})' for file, problem in problems])
    numbers = Counter(image_id(image) for (image, _), _ in attempts)
    twins = [f'{file} ({i})' for file, ((i, _), _) in zip(files, attempts, strict=True) if numbers[image_id(i)] > 1]
    refuse(folder, 'one file for each photograph', twins)
    return add_up(pair for pair, _ in attempts)


def attempt(read: Callable, file: str) -> tuple[Any, str | None]:
    try:
        return read(file), None
    except Exception as error:  # decoders raise whatever they like
        return None, str(error) or type(error).__name__


def labelme_tags(folder: Path, files: list[str], images: Path | None) -> Tags:
    photographs = photographs_of(images) if images else {}
    return read_each(partial(read_labelme, folder, photographs), files, folder, 'LabelMe annotations')


def voc_tags(folder: Path, skip_difficult: bool = False, images: Path | None = None) -> Tags:
    """Names of the objects in VOC annotations, those in folders below included."""
    files, photographs = files_below(folder), photographs_of(images) if images else {}
    files = [file for file in files if file.lower().endswith('.xml')]
    read = partial(read_voc_annotation, folder, photographs, skip_difficult)
    return read_each(read, files, folder, 'VOC annotations')


def read_voc_annotation(
    folder: Path, photographs: dict[str, str], skip_difficult: bool, file: str
) -> tuple[str, list[str]]:
    if not (folder / file).is_file():
        raise FileNotFoundError('no file')
    root = ElementTree.parse(folder / file).getroot()
    if root.tag != 'annotation':
        raise ValueError(f'<{root.tag}> instead of <annotation>')
    names = []
    for item in root.findall('object'):
        name = class_name(item.findtext('name', ''))
        if not name:
            raise ValueError('an <object> without a <name>')
        if not (skip_difficult and item.findtext('difficult', '').strip() == '1'):
            names.append(name)
    said = root.findtext('path', '').strip() or root.findtext('filename', '').strip()
    return photograph_of(file, said, photographs), names


def mask_tags(folder: Path, classes: Sequence[str] | None, first_id: int) -> Tags:
    """Classes whose ids, from the first one on, are in masks of one channel: below it is background, 255 ignored."""
    if classes is None:
        raise ValueError(f'{folder}: expected --classes for the ids of masks, got none')
    files = [file for file in files_below(folder) if file.lower().endswith('.png')]
    processes = min(os.cpu_count() or 1, 8) if len(files) >= PARALLEL_FROM else 1
    expected = f'masks with the ids 0..{len(classes) - 1 + first_id} or {IGNORE_INDEX}'
    tags = read_each(partial(read_mask, folder, classes, first_id), files, folder, expected, processes)
    if not any(tags.values()):
        painted = f'objects that are painted with {IGNORE_INDEX}, as they often are, need the id of their class'
        raise ValueError(f'{folder}: expected {expected}, got no class in any of {len(tags)}; {painted}')
    return tags


def read_mask(folder: Path, classes: Sequence[str], first_id: int, file: str) -> tuple[str, list[str]]:
    with open_image(folder / file) as mask:
        if len(mask.getbands()) > 1:
            raise ValueError(f'the channels {"".join(mask.getbands())}')
        if mask.mode in ('L', 'P'):
            present = sorted(i for _, i in mask.getcolors())  # a histogram, in half the time of sorting the pixels
        else:  # 1 bit, which getcolors calls 0 and 255, or 16
            present = np.unique(np.asarray(mask)).astype(int).tolist()
    ids = [i - first_id for i in present if i not in (first_id - 1, IGNORE_INDEX)]
    if unknown := [i + first_id for i in ids if not 0 <= i < len(classes)]:
        raise ValueError(f'ids {first_few([str(i) for i in unknown])}')
    return PurePath(file).with_suffix('').as_posix(), [classes[i] for i in ids]


def visible_folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith('.'))


def split_tags(folder: Path, splits: list[Path]) -> Tags:
    """Those of `class_folder_tags` in each split, as <split>/<class>/<image>; a split without has none."""
    others = [child for child in visible_folders(folder) if child not in splits]
    classes = [child.name for child in others if child.name.casefold() not in SPLITS]
    refuse(folder, f'folders of splits ({", ".join(sorted(SPLITS))}) or of classes, and not both', classes)
    tags = {}
    for split in splits:
        tags |= {f'{split.name}/{image}': names for image, names in class_folder_tags(split).items()}
    if others:
        left_out = ', '.join(child.name for child in others)
        warnings.warn(f'{folder}: left out {left_out}, which have no folders named after classes', stacklevel=2)
    return tags


def roboflow_tags(folder: Path, files: list[Path]) -> Tags:
    """Those of each table or COCO file, with the folder that it is in before the name of the image."""
    pairs = []
    for file in files:
        tags = coco_tags(file, read_json(file)) if file.suffix == '.json' else spreadsheet_tags(file)[1]
        split = file.parent.relative_to(folder)
        pairs += [((split / image).as_posix(), [n for n in names if n != UNLABELED]) for image, names in tags.items()]
    return add_up(pairs)


def cvat_tags(path: Path) -> Tags:
    return add_up((as_image(image), map(class_name, names)) for image, names in cvat_pairs(path))


def label_studio_tags(path: Path, records: list) -> Tags:
    pairs, left_out = label_studio_pairs(path, records)
    if left_out:
        told = f'{path}: left out {len(left_out)} images that nobody has annotated: {first_few(left_out)}'
        warnings.warn(told, stacklevel=2)
    return add_up((as_image(image), map(class_name, names)) for image, names in pairs)


def class_folder_tags(folder: Path) -> Tags:
    """The name of the class folder that each image is in, at any depth."""
    tags, without, left_out = {}, [], []
    for child in visible_folders(folder):
        files = [f'{child.name}/{file}' for file in files_below(child)]
        images = [file for file in files if is_image(file)]
        if files and not images:
            without.append(child.name)
        left_out += sorted(set(files).difference(images))
        tags.update({image: [class_name(child.name)] for image in images})
    if without or not tags:
        raise ValueError(not_understood(folder, f'folders without images: {first_few(without) or "all"}'))
    if left_out:
        told = f'{folder}: left out {len(left_out)} files that are no images: {first_few(left_out)}'
        warnings.warn(told, stacklevel=2)
    return tags


# Files


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without byte order mark, or in UTF-16 with one."""
    content = path.read_bytes()
    encoding = 'utf-16' if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else 'utf-8-sig'
    expected = 'UTF-8, or UTF-16 with a byte order mark (Excel: save as "CSV UTF-8" or "Unicode Text")'
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f'{path}: expected {expected}, got {error}') from error
    if '\0' in text:
        raise ValueError(f'{path}: expected {expected}, got zero bytes')
    return text


def read_json(path: Path) -> Any:
    """The content of a JSON file; JSON lines are a list."""
    text = read_text(path)
    if path.suffix.lower() != '.json':
        return read_json_lines(path, text)
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        if error.msg == 'Extra data':  # after the first line
            return read_json_lines(path, text)
        raise ValueError(f'{path}: expected JSON, got {error}') from error
    except (RecursionError, ValueError) as error:
        raise ValueError(f'{path}: expected {error}') from error


def read_json_lines(path: Path, text: str) -> list:
    records = []
    for number, line in enumerate(text.split('\n'), start=1):
        try:
            if line.strip():
                records.append(json.loads(line, object_pairs_hook=unique_keys))
        except (RecursionError, ValueError) as error:
            raise ValueError(f'{path}: expected JSON in line {number}, got {error}') from error
    return records


def unique_keys(pairs: list[tuple[str, Any]]) -> dict:
    """A JSON object; of a key that comes twice, json would drop the first without a word."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        raise ValueError(f'each key of an object once, not so for {len(twice)}: {first_few(twice)}')
    return content


def coco_tags(path: Path, content: dict) -> Tags:
    """Names of the categories that the annotations give to each image, crowds included.

    Args:
        path: for errors.
        content: of an instances_*.json.
    """
    for key, fields in COCO_FIELDS.items():
        entries = content[key] if isinstance(content[key], list) else [None]
        good = [isinstance(e, dict) and all(isinstance(e.get(f), kind) for f, kind in fields.items()) for e in entries]
        bad = [f'{key}[{i}]' for i, is_good in enumerate(good) if not is_good]
        refuse(path, f'{" and ".join(fields)} in each of the {key}', bad)
        if 'id' in fields:
            counts = Counter(entry['id'] for entry in entries)
            twice = [f'{number} with id {i}' for i, number in counts.items() if number > 1]
            refuse(path, f'an id of its own for each of the {key}', twice)
    images = {entry['id']: as_image(entry['file_name']) for entry in content['images']}
    names = {entry['id']: class_name(entry['name']) for entry in content['categories']}
    for field, known in (('image_id', images), ('category_id', names)):
        values = enumerate(entry[field] for entry in content['annotations'])
        unknown = [f'annotations[{i}] ({field} {value})' for i, value in values if value not in known]
        refuse(path, f'an entry for the {field} of each annotation', unknown)
    found = ((images[entry['image_id']], [names[entry['category_id']]]) for entry in content['annotations'])
    return add_up(chain(((image, []) for image in images.values()), found))


def json_tags(path: Path, content: Any) -> Tags:
    """Tags that are listed for each image.

    Args:
        path: for errors.
        content: {file: [tag, …]}, or a list of records with one of `IMAGE_KEYS` and one of `TAG_KEYS`.
    """
    if isinstance(content, dict):
        pairs = list(content.items())
        shown = [f'{image!r}: {names!r}'[:80] for image, names in pairs]
        expected = 'a list of tags for each file'
    elif isinstance(content, list):
        pairs = [image_and_tags(record) for record in content]
        shown = [f'record {number} {record!r}'[:80] for number, record in enumerate(content, start=1)]
        expected = f'one of {", ".join(IMAGE_KEYS)} and one of {", ".join(TAG_KEYS)}, a list, in each record'
    else:
        raise ValueError(not_understood(path, f'JSON with a {type(content).__name__}'))
    good = [is_text(image) and is_texts(names) for image, names in pairs]
    refuse(path, expected, [text for text, is_good in zip(shown, good, strict=True) if not is_good])
    return add_up((as_image(image), map(class_name, names)) for image, names in pairs)


def image_and_tags(record: Any) -> tuple[Any, Any]:
    """The values of the one image key and the one tag key; None where there is none, or several."""
    values = []
    for keys in (IMAGE_KEYS, TAG_KEYS):
        found = [record[key] for key in keys if key in record] if isinstance(record, dict) else []
        values.append(found[0] if len(found) == 1 else None)
    return tuple(values)


def is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ''


def is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def spreadsheet_tags(path: Path) -> tuple[str, Tags]:
    """What the columns are, and the tags: image and tags in two columns, or one column per class.

    Tags in a cell are separated by `;`, `,` or `|`, or are a list as Python, NumPy or JSON write it. A cell of a class
    says one of `PRESENT`, such as 1, x, true or yes, or of `ABSENT`, such as 0, nothing, false or no. Several rows for
    one image add up.
    """
    delimiter, rows = read_rows(path)
    if [row[0] for _, row in rows] == ['', *map(str, range(len(rows) - 1))]:  # the index that pandas writes
        rows = [(number, row[1:]) for number, row in rows]
    titles = next((i for i, (_, row) in enumerate(rows) if len(row) > 1 or is_image(row[0])), 0)
    below = rows[titles:]
    if titles and (has_header(below) or any(is_image(cell) for _, row in below for cell in row[1:])):
        rows = below
    width = max(2, *(len(row) for _, row in rows[:1]))
    # Shorter rows are Excel's way to write empty cells at their end.
    refuse(path, f'{width} cells in each row', [f'row {n} ({len(row)} cells)' for n, row in rows if len(row) > width])
    rows = [(number, row + [''] * (width - len(row))) for number, row in rows]
    place = image_column(rows)
    rows = [(number, [row[place], *row[:place], *row[place + 1 :]]) for number, row in rows]
    refuse(path, 'an image in the first cell of each row', [f'row {number}' for number, row in rows if not row[0]])
    header = rows.pop(0)[1] if has_header(rows) else None
    if header is None and any(is_image(row[0]) for _, row in rows):  # else ids without endings
        others = [f'row {number} ({row[0]!r})' for number, row in rows if not PurePath(row[0]).suffix]
        refuse(path, 'one header such as image,tags and below it an image in each row', others)
    if header and is_label_studio([dict.fromkeys(header)]):
        records = [dict(zip(header, row, strict=True)) for _, row in rows]
        return "Label Studio's table", label_studio_tags(path, records)
    if header is None and width > 2:
        raise ValueError(f'{path}: expected a header that names the class of each of {width} columns, got none')
    tagged = [i for i, name in enumerate(header or []) if name.casefold() in TAG_HEADERS]
    others = ''
    if width > 2 and len(tagged) == 1 and not all(is_mark(row[tagged[0]]) for _, row in rows):
        images = [i for i, name in enumerate(header) if name.casefold() in IMAGE_HEADERS] or [0]
        columns = [next((i for i in images if all(is_image(row[i]) for _, row in rows)), images[0]), *tagged]
        others = f', the others left out ({", ".join(name for i, name in enumerate(header) if i not in columns)})'
        header, width = [header[i] for i in columns], 2
        rows = [(number, [row[i] for i in columns]) for number, row in rows]
    one_class = header and header[1].casefold() not in TAG_HEADERS and all(is_mark(row[1]) for _, row in rows)
    if width == 2 and not one_class:
        refuse(path, 'no images as tags', [f'row {number} ({row[1]!r})' for number, row in rows if is_image(row[1])])
        kind = f'image and tags in two columns, {"with" if header else "without"} header{others}'
        tags = add_up((as_image(row[0]), filter(None, map(class_name, names_in(row[1])))) for _, row in rows)
    else:
        kind = 'one column per class'
        tags = add_up(rows_of_marks(path, [class_name(name) for name in header[1:]], rows))
    return f'{kind}, delimiter {DELIMITERS.get(delimiter, delimiter)}', tags


def names_in(cell: str) -> list[str]:
    if not (bracketed := re.fullmatch(r'\[(.*)\]|\{(.*)\}|\((.*)\)', cell, re.DOTALL)):
        return re.split('[;,|]', cell)
    # In quotes; NumPy writes no commas between them, which ast.literal_eval would take for one text.
    inner = next(filter(None, bracketed.groups()), '')
    return [name for _, name in re.findall(r"""(['"])(.*?)\1""", inner, re.DOTALL)] or re.split('[;,|]', inner)


def read_rows(path: Path) -> tuple[str, list[tuple[int, list[str]]]]:
    """The delimiter and the rows that are not empty, with their numbers from 1; empty cells at their end left out."""
    text = read_text(path)
    if said := re.match(r'"?sep=(.)"?[ \t;,]*(?=[\r\n])', text, re.IGNORECASE):  # Excel's
        text = text[said.end() :]  # with the end of its line, so that the rows keep their numbers
    found = {}
    for delimiter in said[1] if said else DELIMITERS:
        try:
            reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True)
            first = next((row for row in reader if len(row) > 1 and any(map(str.strip, row))), [])
        except csv.Error:  # quotes that end before another delimiter
            continue
        if first:
            lines = sum(delimiter in line for line in text.splitlines())
            found[delimiter] = not is_image(first[0].strip()), -lines, len(first[0].strip())
    if not found:
        raise ValueError(f'{path}: expected two or more columns, separated by tab, ; or , and got one or none')
    # Other cells, and a title, may hold the others; the first cell seldom does, and is whole where it names a file.
    delimiter = min(found, key=found.get)
    reader, rows = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True), []
    try:
        for number, row in enumerate(reader, start=1):
            cells = [cell.strip() for cell in row]
            while cells and not cells[-1]:
                cells.pop()
            if cells:
                rows.append((number, cells))
    except csv.Error as error:
        raise ValueError(f'{path}: expected a CSV file, got {error} in line {reader.line_num}') from error
    return delimiter, rows


def is_image(text: str) -> bool:
    return text.lower().endswith(IMAGE_ENDINGS)


def is_mark(text: str) -> bool:
    return text.casefold() in PRESENT | ABSENT


def image_column(rows: list[tuple[int, list[str]]]) -> int:
    """The first, unless it names no image file, and another does in each row, or the header says that another does."""
    (_, first), *others = rows
    if not others or any(is_image(row[0]) for _, row in others):
        return 0
    found = [i for i in range(len(first)) if all(is_image(row[i]) for _, row in others)]
    if first[0].casefold() in TAG_HEADERS:
        found += [i for i, name in enumerate(first) if name.casefold() in IMAGE_HEADERS]
    return next(iter(found), 0)


def has_header(rows: list[tuple[int, list[str]]]) -> bool:
    """Whether the first row is a header: by its words, or as the only one whose first cell is no image file."""
    (_, first), *others = rows
    if is_image(first[0]):
        return False
    known = first[0].casefold() in IMAGE_HEADERS or first[1].casefold() in TAG_HEADERS
    named = len(first) > 2 and not all(map(is_mark, first[1:]))
    return known or named or (len(others) > 0 and all(is_image(row[0]) for _, row in others))


def rows_of_marks(path: Path, names: list[str], rows: list[tuple[int, list[str]]]) -> list[tuple[str, list[str]]]:
    """Images and their tags from rows with one mark per class."""
    bad = [f'column {i}' for i, name in enumerate(names, start=2) if not name or names.count(name) > 1]
    refuse(path, 'a class name of its own at the head of each column', bad)
    pairs, bad = [], []
    for number, (image, *cells) in rows:
        marks = [cell.casefold() for cell in cells]
        bad += [
            f'row {number}, column {name!r}: {cell!r}'
            for name, cell, mark in zip(names, cells, marks, strict=True)
            if not is_mark(mark)
        ]
        pairs.append((as_image(image), [name for name, mark in zip(names, marks, strict=True) if mark in PRESENT]))
    refuse(path, '1, x, true or yes, or 0, nothing, false or no in each cell', bad)
    return pairs


def cls_labels_tags(path: Path, classes: Sequence[str] | None) -> Tags:
    """Classes of the columns that are 1; VOC's where there are 20 columns and no classes are given."""
    if classes is None:
        sizes = sorted({vector.shape for vector in load_tag_file(path).values()})
        if sizes != [(len(VOC_CLASSES),)]:
            expected = f'--classes, or vectors of the {len(VOC_CLASSES)} classes of VOC'
            raise ValueError(f'{path}: expected {expected}, got {", ".join(map(str, sizes))}')
        classes = VOC_CLASSES
    vectors = load_tag_file(path, classes)
    return {image: [classes[i] for i in vector.nonzero()[0]] for image, vector in vectors.items()}
