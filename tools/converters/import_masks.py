"""Masks that were drawn or corrected in another tool, as PNGs of class ids: `pip install 'aream_mm[export]'`.

    python tools/converters/import_masks.py annotations.xml

SOURCE is COCO (.json, segmentations), CVAT for images 1.1 (.xml; unzip it), or a folder of LabelMe's JSON, of YOLO
(data.yaml, labels), of VOC (SegmentationClass, labelmap.txt), or of PNGs in the colours that masks have here, as a
painting program saves them. Polygons, masks and run-length codes are read; boxes are no outlines and refused. Of shapes
that overlap the later one is on top, in COCO and YOLO the smaller one. Pixels without a shape are background; images
without a shape are left out. Classes and folders are those of own.py.
"""

import argparse
import base64
import io
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import aream_mm.quiet  # noqa: F401

import cv2
import numpy as np
import yaml
from export_masks import BACKGROUND, IGNORE, MISSING
from labelling_tools import OWN, cvat_pairs, photographs_of, read_labelme
from mmengine.config import Config
from PIL import Image, ImageDraw
from tag_sources import COCO_FIELDS, coco_tags, read_json

from aream_mm.datasets.images import files_below, first_few, read_header, why_unreadable
from aream_mm.datasets.tags import class_name, image_id, refuse
from aream_mm.files import read_lines, write_atomically
from aream_mm.masks import IGNORE_INDEX, SIZES, VOC_COLOURS, encode_mask

Size = tuple[int, int]  # height and width
IGNORED = tuple(VOC_COLOURS[IGNORE_INDEX])


class Drawn(NamedTuple):
    """An image's name, its size where the source tells it, and each shape's label and plane (H, W), lowest first."""

    name: str
    size: Size | None
    shapes: list


def polygon(points: list, size: Size) -> np.ndarray:
    """As LabelMe draws it, the pixels of its edge among them."""
    plane = Image.new('1', size[::-1])
    ImageDraw.Draw(plane).polygon([tuple(point) for point in points], fill=1, outline=1)
    return np.array(plane)


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Errors within are a ValueError that names the file or image."""
    try:
        yield
    except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        told = str(error).removeprefix(f'{what}: ') if isinstance(error, ValueError) else repr(error)
        raise ValueError(f'{what}: {told}') from error


def by_area(shapes: list) -> list:
    return sorted(shapes, key=lambda shape: -int(shape[1].sum()))


def no_outline(what: str) -> None:
    raise ValueError(f'expected polygons or masks, got {what}')


def read_coco(path: Path) -> Iterator[Drawn]:
    from coco import read_region

    content = read_json(path)
    if not isinstance(content, dict) or not COCO_FIELDS.keys() <= content.keys():
        raise ValueError(f'expected {", ".join(COCO_FIELDS)}, got something else')
    coco_tags(path, content)  # which finds fault
    names = {category['id']: category['name'] for category in content['categories']}
    entries = defaultdict(list)
    for entry in content['annotations']:
        entries[entry['image_id']].append(entry)
    for image in content['images']:
        with naming(image['file_name']):
            size, shapes = (image['height'], image['width']), []
            for entry in entries[image['id']]:
                if not (outline := entry.get('segmentation')):
                    no_outline(f'annotation {entry.get("id")} without a segmentation')
                own_size = outline.get('size', size) if isinstance(outline, dict) else size
                shapes.append((names[entry['category_id']], read_region(entry, *own_size)))
            yield Drawn(image['file_name'], size, by_area(shapes))


def read_cvat(path: Path) -> Iterator[Drawn]:
    from coco import read_region

    cvat_pairs(path)  # which finds fault
    for image in ElementTree.parse(path).getroot().findall('image'):
        with naming(image.get('name')):
            size, shapes = (int(image.get('height')), int(image.get('width'))), []
            for shape in sorted(image, key=lambda shape: int(shape.get('z_order', 0))):
                plane = np.zeros(size, bool)
                if shape.tag == 'polygon':
                    points = [float(value) for value in shape.get('points').replace(';', ',').split(',')]
                    about = dict(id=shape.get('label'), image_id=image.get('id'))
                    plane = read_region(dict(about, segmentation=[points]), *size)
                elif shape.tag == 'mask':
                    left, top, width, height = (int(shape.get(key)) for key in ('left', 'top', 'width', 'height'))
                    runs = [int(number) for number in shape.get('rle').split(',')]
                    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
                    plane = placed(inside, left, top, size)
                elif shape.tag != 'tag':
                    no_outline(f'<{shape.tag}>')
                if shape.tag != 'tag':
                    shapes.append((shape.get('label'), plane))
            yield Drawn(image.get('name'), size, shapes)


def placed(inside: np.ndarray, left: int, top: int, size: Size) -> np.ndarray:
    """The part of a mask that lies on an image, whose corner may be outside of it."""
    plane = Image.new('1', size[::-1])
    plane.paste(Image.fromarray(inside), (left, top))
    return np.array(plane)


def read_labelme_shapes(folder: Path, photographs: dict[str, str]) -> Iterator[Drawn]:
    for file in [file for file in files_below(folder) if file.lower().endswith('.json')]:
        with naming(file):
            (name, _), shapes = read_labelme(folder, photographs, file), []
            content = json.loads((folder / file).read_text(encoding='utf-8-sig'))
            if not {'imageHeight', 'imageWidth'} <= content.keys():
                raise ValueError(f'{file}: expected imageHeight and imageWidth, got none')
            size = content['imageHeight'], content['imageWidth']
            for shape in content['shapes']:
                kind = shape.get('shape_type') or 'polygon'
                if kind == 'polygon' and len(shape['points']) > 2:
                    plane = polygon(shape['points'], size)
                elif kind == 'mask':
                    (left, top), _ = np.array(shape['points']).astype(int).tolist()
                    inside = np.array(Image.open(io.BytesIO(base64.b64decode(shape['mask'])))).astype(bool)
                    plane = placed(inside, left, top, size)
                else:
                    no_outline(f'a {kind} of {len(shape["points"])} points')
                shapes.append((shape['label'], plane))
            yield Drawn(name, size, shapes)


def read_yolo(folder: Path, photographs: dict[str, str], images: Path) -> Iterator[Drawn]:
    names = yaml.safe_load((folder / 'data.yaml').read_bytes())['names']
    for file in files_below(folder / 'labels'):
        with naming(file):
            known = photographs.get(image_id(Path(file).with_suffix('.jpg').as_posix()))
            header = known and read_header(images / known)
            if not header:
                raise ValueError(f'expected a photograph in {images}, got none')
            shapes = []
            for line in filter(None, read_lines(folder / 'labels' / file, encoding='utf-8-sig')):
                number, *values = line.split()
                if len(values) < 6:
                    no_outline('a box')
                points = np.array(values, float).reshape(-1, 2)
                if not (abs(points) <= 2).all() or not 0 <= int(number) < len(names):  # a little outside is usual
                    expected = f'the number of one of {len(names)} classes, and shares of width and height'
                    raise ValueError(f'expected {expected}, got {line[:80]!r}')
                points = (points * header.size).astype(np.int32)
                plane = cv2.fillPoly(np.zeros(header.size[::-1], np.uint8), [points], 1).astype(bool)
                shapes.append((names[int(number)], plane))
            yield Drawn(known, header.size[::-1], by_area(shapes))


def read_voc(folder: Path) -> Iterator[Drawn]:
    lines = [line.split(':') for line in (folder / 'labelmap.txt').read_text(encoding='utf-8-sig').splitlines()]
    pairs = [(tuple(map(int, line[1].split(','))), line[0]) for line in lines if line[0][:1] != '#' and len(line) > 1]
    colours = {IGNORED: IGNORE, **dict(pairs)}
    twins = [name for colour, name in pairs if colours[colour] != name]
    refuse(folder / 'labelmap.txt', 'a colour of its own for each class', twins)
    return read_colours(folder / 'SegmentationClass', colours, 'labelmap.txt')


def read_colours(folder: Path, colours: dict[tuple[int, ...], str], origin: str) -> Iterator[Drawn]:
    for file in files_below(folder):
        with naming(file):
            pixels = np.array(Image.open(folder / file).convert('RGB'))
            found, numbers = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
            found = [tuple(map(int, colour)) for colour in found]
            if unknown := [str(colour) for colour in found if colour not in colours]:
                raise ValueError(f'expected colours of {origin}, got {first_few(unknown)}')
            planes = [(colours[colour], numbers.reshape(pixels.shape[:2]) == n) for n, colour in enumerate(found)]
            shapes = [(label, plane) for label, plane in planes if label not in ('background', BACKGROUND)]
            yield Drawn(file, pixels.shape[:2], shapes)


def reader_of(
    source: Path, photographs: dict[str, str], images: Path, palette: dict[tuple[int, ...], str]
) -> tuple[str, Iterator[Drawn]]:
    """What the source is taken for, and what is in it."""
    files = files_below(source) if source.is_dir() else []
    if (source / 'data.yaml').is_file():
        return 'YOLO', read_yolo(source, photographs, images)
    if (source / 'SegmentationClass').is_dir() and (source / 'labelmap.txt').is_file():
        return 'VOC', read_voc(source)
    if any(file.lower().endswith('.json') for file in files):
        return 'LabelMe', read_labelme_shapes(source, photographs)
    if files and all(file.lower().endswith('.png') for file in files):
        return 'masks in colours', read_colours(source, {IGNORED: IGNORE, **palette}, 'the classes')
    if source.is_file() and source.suffix.lower() in ('.json', '.xml'):
        return ('COCO', read_coco(source)) if source.suffix.lower() == '.json' else ('CVAT', read_cvat(source))
    raise ValueError('expected a .json of COCO, a .xml of CVAT, or a folder of LabelMe, YOLO, VOC or PNGs')


def main() -> None:
    own = Config.fromfile(OWN)
    root, prefixes = Path(own.photographs.data_root), own.photographs.data_prefix
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help='file or folder of the other tool')
    parser.add_argument('--images', type=Path, default=root / prefixes.img_path, help='folder of the photographs')
    parser.add_argument('--out', type=Path, default=root / prefixes.seg_map_path, help='folder of the masks')
    parser.add_argument('--classes', nargs='+', default=own.classes, help='in the order of their ids, background first')
    args = parser.parse_args()
    if find_spec('pycocotools') is None:
        parser.error(MISSING)
    if ['background', *args.classes] == list(own.classes):  # which tags.py lets be left out
        args.classes = own.classes
    classes, photographs = [class_name(name) for name in args.classes], photographs_of(args.images)
    ids = {name: i for i, name in enumerate(classes)}
    if len(ids) < len(classes):
        parser.error(f'--classes: expected different names, got {", ".join(classes)}')
    if args.out.resolve().is_relative_to(root.resolve()) and classes != [*map(class_name, own.classes)]:
        expected = f'those of {OWN} for masks in {root}, {", ".join(own.classes)}'
        parser.error(f'--classes: expected {expected}; got {", ".join(classes)}')
    without = ids.get('background', IGNORE_INDEX)
    ids |= {BACKGROUND: without, IGNORE: IGNORE_INDEX, 'background': without}
    palette = dict(zip(map(tuple, own.photographs.metainfo.get('palette', VOC_COLOURS)), classes, strict=False))
    kind, masks, empty, lost, problems = 'nothing known', {}, [], [], []
    try:
        kind, images = reader_of(args.source, photographs, args.images, palette)
        for image in images:
            known = photographs.get(image_id(image.name))
            header = known and read_header(args.images / known)
            labels = [class_name(label) for label, _ in image.shapes]
            if not header:
                problems.append(f'{image.name} ({why_unreadable(args.images / known) if known else "no photograph"})')
            elif header.size[::-1] != tuple(image.size):
                problems.append(f'{image.name} ({SIZES.format(*header.size, *image.size[::-1])})')
            elif others := [plane.shape for _, plane in image.shapes if plane.shape != tuple(image.size)]:
                problems.append(f'{image.name} (shape: {SIZES.format(*header.size, *others[0][::-1])})')
            elif unknown := sorted(set(labels) - ids.keys()):
                problems.append(f'{image.name} (classes {", ".join(unknown)})')
            elif labels and not any(plane[2:].any() or plane[:, 2:].any() for _, plane in image.shapes):
                problems.append(f'{image.name} (shapes outside of the image, or in shares of its sides)')
            elif not labels:
                empty.append(image.name)
            elif (file := (args.out / known).with_suffix('.png')) in masks:
                problems.append(f'{image.name} (twice)')
            else:
                mask = np.full(image.size, without, np.uint8)
                for label, (_, plane) in zip(labels, image.shapes, strict=True):
                    mask[plane] = ids[label]
                    lost += [] if plane.any() else [f'{label} in {image.name}']
                masks[file] = mask
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f'{args.source}: taken for {kind}; {error}') from error
    expected = f'photographs of {args.images}, their sizes, and the classes {", ".join(classes)}'
    refuse(args.source, expected, problems)
    present = {file: np.array(Image.open(file)) for file in masks if file.exists()}
    there = [str(file) for file, mask in present.items() if not np.array_equal(mask, masks[file])]
    refuse(args.out, 'no other masks there (remove what is to be replaced)', there)
    for file, mask in masks.items():
        write_atomically(file, encode_mask(mask))
    print(f'{args.source}, taken for {kind}: {len(masks)} masks in {args.out}')
    if lost:
        print(f'{len(lost)} shapes without a pixel of their image are left out: {first_few(lost)}')
    if empty:
        print(f'{len(empty)} images without a shape are left out: {first_few(empty)}')


if __name__ == '__main__':
    main()
