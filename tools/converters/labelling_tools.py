"""The exports of labelling tools, each as pairs of the path of an image and the names of the classes in it.

Shapes of any kind count with their labels, and tags of the whole image. What is malformed raises a ValueError.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse
from xml.etree import ElementTree

from aream_mm.datasets.images import find_images, require_distinct_names
from aream_mm.datasets.tags import IMAGE_ENDINGS, image_id, refuse

OWN = Path(__file__).parents[2] / 'configs/_base_/datasets/own.py'
Pairs = list[tuple[str, list[str]]]

NO_CLASSES = {'_background_', '__ignore__'}  # LabelMe's
# Of Label Studio: what it adds to the data and the tags in a record of its CSV and JSON-MIN.
ADDED = {'id', 'annotator', 'annotation_id', 'created_at', 'updated_at', 'lead_time', 'inner_id', 'total_annotations'}
UPLOADED = re.compile(r'^/?data/upload/(?:\d+/)?[0-9a-f]+-(?=.)')  # before the name that the file had


def photographs_of(folder: Path) -> dict[str, str]:
    """By id, the path below the folder of each photograph."""
    if not folder.is_dir():
        raise FileNotFoundError(f'--images: expected a folder of photographs, got {str(folder)!r}')
    images, _ = find_images(folder)
    require_distinct_names(folder, images)
    return {image_id(image): image for image in images}


def photograph_of(file: str, said: str, photographs: Mapping[str, str]) -> str:
    """The photograph of an annotation file: the one of the file's own name and folder, else of the path that it says.

    That is relative to the file, or its end counts, the longest that there is. Where nothing is among the photographs,
    by id, it is that of the file's name and folder.

    Raises:
        ValueError: there are both.
    """
    # When files are renamed, what they say keeps the old name.
    own, path = PurePath(file).with_suffix(''), PureWindowsPath(said)
    belongs = path.stem == own.name and path.suffix.lower() in IMAGE_ENDINGS
    own = (own.with_name(path.name) if belongs else own).as_posix()
    beside = os.path.normpath(PurePath(file).parent / path.as_posix())
    places = map(image_id, [beside, *('/'.join(path.parts[n:]) for n in range(len(path.parts)))])
    found = [photographs.get(image_id(own)), next(filter(None, map(photographs.get, places)), None)]
    if None not in found and len(set(found)) > 1:
        places = 'that of {}, and the path in it that of {}'.format(*found)
        raise ValueError(f'{file}: expected one photograph, but its own place is {places}')
    return found[0] or found[1] or own


def read_labelme(folder: Path, photographs: Mapping[str, str], file: str) -> tuple[str, list[str]]:
    """The image of a LabelMe JSON (AnyLabeling, X-AnyLabeling), and the labels of its shapes and flags."""
    content = json.loads((folder / file).read_text(encoding='utf-8-sig'))
    if not is_labelme(content):
        raise ValueError('no JSON with shapes and an imagePath')
    names = [shape['label'].strip() for shape in content['shapes']]
    names += [name.strip() for name, is_set in (content.get('flags') or {}).items() if is_set is True]
    image = photograph_of(file, content['imagePath'], photographs)
    return image, [name for name in names if name not in NO_CLASSES]


def is_labelme(content: Any) -> bool:
    shapes = content.get('shapes') if isinstance(content, dict) else None
    return (
        isinstance(shapes, list)
        and isinstance(content.get('imagePath'), str)
        and all(isinstance(shape, dict) and isinstance(shape.get('label'), str) for shape in shapes)
    )


def is_cvat(path: Path) -> bool:
    try:
        with path.open('rb') as file:
            return next(ElementTree.iterparse(file, events=('start',)))[1].tag == 'annotations'
    except (ElementTree.ParseError, OSError, StopIteration):
        return False


def cvat_pairs(path: Path) -> Pairs:
    """CVAT for images 1.1: `<image name>` with `<tag label>` and shapes, `<box label>` and so on."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f'{path}: expected the XML of CVAT, got {error}') from error
    if root.find('track') is not None or root.find('image') is None:
        got = 'the tracks of a video' if root.find('track') is not None else f'<{root.tag}> without an <image>'
        raise ValueError(f'{path}: expected an export "CVAT for images 1.1", got {got}')
    images = root.findall('image')
    parts = [(i, part) for i, image in enumerate(images, start=1) for part in image]
    refuse(
        path, 'a name for each <image>', [f'image {i}' for i, image in enumerate(images, 1) if not image.get('name')]
    )
    refuse(path, 'a label for each tag and shape', [f'<{p.tag}> of image {i}' for i, p in parts if not p.get('label')])
    return [(image.get('name'), [part.get('label') for part in image]) for image in images]


def is_label_studio(content: Any) -> bool:
    """Whether it is the JSON of tasks, or are the records of JSON-MIN or CSV."""
    first = content[0] if isinstance(content, list) and content else None
    is_record = isinstance(first, dict) and 'id' in first and not ADDED.isdisjoint(first.keys() - {'id'})
    return is_record or isinstance(first, dict) and {'annotations', 'data'} <= first.keys()


def label_studio_pairs(where: Path, content: list) -> tuple[Pairs, list[str]]:
    """Label Studio's JSON, JSON-MIN or rows of its CSV; and the images that nobody has annotated."""
    pairs, problems, left_out = [], [], []
    for number, record in enumerate(content, start=1):
        try:
            image, annotations = (task_tags if 'data' in record else record_tags)(record)
            if any(set(names) != set(annotations[0]) for names in annotations):
                raise ValueError(f'annotators who differ: {" / ".join(map(str, annotations))}')
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            problems.append(f'record {number} ({error})')
            continue
        if annotations:
            pairs.append((image, annotations[0]))
        else:
            left_out.append(image)
    refuse(where, "Label Studio's records with one image and its tags", problems)
    by_image: dict[str, set] = {}
    differ = [image for image, names in pairs if by_image.setdefault(image, set(names)) != set(names)]
    refuse(where, 'one image of a name, and annotators who agree', differ)
    return pairs, left_out


def task_tags(task: Mapping[str, Any]) -> tuple[str, list[list[str]]]:
    """Image of a task, and the tags of each of its annotations."""
    images = [value for value in task['data'].values() if is_image(value)]
    if len(images) != 1:
        raise ValueError(f'{len(images)} images in its data')
    given = [annotation for annotation in task['annotations'] if not annotation.get('was_cancelled')]
    return uploaded(images[0]), [
        [name for result in annotation['result'] for name in texts_in(result['value'])] for annotation in given
    ]


def record_tags(record: Mapping[str, Any]) -> tuple[str, list[list[str]]]:
    """Image of a record of JSON-MIN or CSV, and its tags."""
    images = [key for key, value in record.items() if is_image(value)]
    others = [key for key in record if key not in ADDED and key not in images and key is not None]
    if len(images) != 1 or len(others) > 1:
        raise ValueError(f'images in {images}, tags in {others}; expected one of each, remove the others')
    value = record[others[0]] if others else []
    if isinstance(value, str) and value.strip()[:1] in ('{', '['):
        value = json.loads(value)
    return uploaded(record[images[0]]), [texts_in(value)]


def texts_in(value: Any) -> list[str]:
    """Names in a value: 'cat', {'choices': ['cat']}, [{'x': 5, 'rectanglelabels': ['cat']}]."""
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, dict):
        named = [v for key, v in value.items() if key == 'choices' or key.endswith('labels')]
        if not named:
            raise ValueError(f'no choices or labels in {str(value)[:60]}')
        return [name for v in named for name in texts_in(v)]
    if isinstance(value, list):
        return [name for v in value for name in texts_in(v)]
    if value is None:
        return []
    raise ValueError(f'{value!r} in the place of tags')


def is_image(value: Any) -> bool:
    return isinstance(value, str) and uploaded(value).lower().endswith(IMAGE_ENDINGS)


def uploaded(text: str) -> str:
    """The name that an image had before Label Studio took it: /data/upload/1/0a1b2c3d-photo.jpg → photo.jpg."""
    url = urlparse(text.strip())
    if url.path.strip('/') == 'data/local-files':
        return parse_qs(url.query).get('d', [''])[0]
    if url.scheme and len(url.scheme) > 1:  # http, https, s3, gs; no drive of Windows
        return PurePath(unquote(url.path)).name
    return UPLOADED.sub('', text.strip())


def roboflow_files(folder: Path) -> Iterator[Path]:
    """What Roboflow writes into the folder of each split, or into the one of all."""
    for name in ('_classes.csv', '_annotations.coco.json'):
        yield from sorted(folder.glob(name))
        yield from sorted(folder.glob(f'*/{name}'))
