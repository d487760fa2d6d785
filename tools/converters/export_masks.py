"""Pseudo masks, those of tools/predict.py, or true ones, in the form of another tool: `pip install 'aream_mm[export]'`.

    python tools/converters/export_masks.py work_dirs/own_photographs/pseudo_masks --to cvat --out exported

    coco    annotations.json, run-length codes                  cvat    annotations.xml, CVAT for images 1.1, masks
    yolo    data.yaml, labels and copies of the photographs     labelme a JSON a photograph, polygons
    voc     SegmentationClass, labelmap.txt, ImageSets; CVAT's "Segmentation mask" too

Classes and photographs are those of the manifest; true masks have none, and those of own.py. Instances are not told
apart: with --instances each connected part of a class is one, as it is in YOLO anyway. Every photograph needs its
mask's name and size. OUT is a new folder.
"""

import argparse
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import aream_mm.quiet  # noqa: F401

import cv2
import numpy as np
from labelling_tools import OWN, photographs_of
from mmengine.config import Config
from PIL import Image, ImageDraw
from scipy import ndimage

from aream_mm.datasets.contents import contents, read_digest, read_mask
from aream_mm.datasets.images import ID_MODES, find_images, first_few, read_header, why_unreadable
from aream_mm.datasets.tags import image_id, refuse
from aream_mm.files import write_atomically
from aream_mm.masks import IGNORE_INDEX, SIZES, VOC_COLOURS, encode_mask, renumbered

MISSING = "expected pycocotools, got none; pip install 'aream_mm[export]'"
IGNORE, BACKGROUND = '__ignore__', '_background_'  # LabelMe's
NEAR = 0.25  # of a pixel, which readers that cut and those that round off take for the same pixel


class MaskedImage(NamedTuple):
    """A photograph, its path below the folder of photographs, and its mask of ids (H, W)."""

    photograph: Path
    name: str
    mask: np.ndarray


def read_masks(folder: Path, images: Path | None) -> tuple[list[str], list[MaskedImage]]:
    """The classes of the manifest, and the masks with their photographs; without images, those of the manifest.

    Raises:
        FileNotFoundError: no manifest of masks that were made here, or no folder of photographs.
        ValueError: no masks, or some that are of no photograph, of another one, of another size or of other ids.
    """
    manifest, own = folder / 'manifest.json', Config.fromfile(OWN)
    files = find_images(folder)[0]
    refuse(folder, 'masks that end in .png', [file for file in files if not file.endswith('.png')])
    found = contents(read_mask, [folder / file for file in files])
    made_from = [mask.get('made_from') for mask in found]
    if manifest.is_file():
        try:
            content = json.loads(manifest.read_bytes())
            content = dict(content, classes=list(content['classes']))
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f'{manifest}: expected JSON with the classes of the masks, got {error!r}') from error
    elif any(made_from):
        raise FileNotFoundError(f'expected {manifest}, which pseudo masks and predictions have when they are complete')
    else:
        print(f'{folder}: no manifest, so taken for true masks of the classes of {OWN}')
        content = dict(classes=own.classes)
    default = Path(own.photographs.data_root, own.photographs.data_prefix.img_path)
    images = images or Path(content.get('photographs') or default)
    classes, known = content['classes'], photographs_of(images)
    refuse(folder, f'a photograph in {images} for each mask', [f for f in files if image_id(f) not in known])
    digests = contents(read_digest, [images / known[image_id(file)] for file in files])
    others = [f for f, made, now in zip(files, made_from, digests, strict=True) if made and made['photograph'] != now]
    refuse(folder, f'masks that were made from the photographs in {images}', others)
    kinds = [mask.get('problem') or mask['mode'] for mask in found]
    wrong = [f'{file} ({kind})' for file, kind in zip(files, kinds, strict=True) if kind not in ID_MODES]
    refuse(folder, 'masks of class ids (grey or palette PNGs of 8 bits)', wrong)
    as_written = [zip(mask['ids'], mask['colours'], strict=True) for mask in found if mask['made_from']]
    palette = {**dict(enumerate(VOC_COLOURS[: len(classes)])), **dict(pair for pairs in as_written for pair in pairs)}
    masked, problems = [], []
    for file, numbers in zip(files, renumbered(found, [palette[i] for i in range(len(classes))]), strict=True):
        name = known[image_id(file)]
        if strange := [number for number in numbers.values() if isinstance(number, str)]:
            problems.append(f'{file} ({first_few(strange)})')
            continue
        mask = np.array(Image.open(folder / file)).astype(np.uint8)  # one bit is read as booleans
        mask = np.uint8([numbers.get(i, i) for i in range(256)])[mask]
        header = read_header(images / name)
        if header is None:
            problems.append(f'{file} ({why_unreadable(images / name)})')
        elif header.size != mask.shape[::-1]:
            problems.append(f'{file} ({SIZES.format(*header.size, *mask.shape[::-1])})')
        elif unknown := [int(i) for i in np.unique(mask) if i >= len(classes) and i != IGNORE_INDEX]:
            problems.append(f'{file} (ids {unknown})')
        masked.append(MaskedImage(images / name, name, mask))
    refuse(folder, f'masks of ids 0..{len(classes) - 1} and 255, of the size of the photograph', problems)
    if not masked:
        raise ValueError(f'{folder}: expected masks (.png), got none')
    return classes, masked


def objects_of(mask: np.ndarray, ids: list[int], instances: bool) -> Iterator[tuple[int, np.ndarray]]:
    """The id and the plane (H, W) of each class in the mask, or of each of its connected parts."""
    for i in ids:
        numbers, count = ndimage.label(mask == i, np.ones((3, 3))) if instances else (mask == i, int((mask == i).any()))
        yield from ((i, numbers == n) for n in range(1, count + 1))


def write_coco(out: Path, classes: dict[int, str], masked: list[MaskedImage], instances: bool) -> None:
    """Without instances the class of an image is a crowd, COCO's word for objects that are not told apart."""
    from pycocotools import mask as coder

    images, annotations = [], []
    for number, image in enumerate(masked, start=1):
        height, width = image.mask.shape
        images.append(dict(id=number, file_name=image.name, width=width, height=height))
        for i, plane in objects_of(image.mask, list(classes), instances):
            code = coder.encode(np.asfortranarray(plane, np.uint8))
            numbers = dict(area=int(plane.sum()), bbox=coder.toBbox(code).tolist(), iscrowd=int(not instances))
            code = dict(size=code['size'], counts=code['counts'].decode())
            about = dict(id=len(annotations) + 1, image_id=number, category_id=i)
            annotations.append(dict(about, segmentation=code, **numbers))
    categories = [dict(id=i, name=name) for i, name in classes.items()]
    content = dict(images=images, annotations=annotations, categories=categories)
    write_atomically(out / 'annotations.json', json.dumps(content).encode())


def contours(plane: np.ndarray, mode: int, method: int) -> list[np.ndarray]:
    """The pixels (N, 2), x and y, of the plane at its edge, and with RETR_CCOMP those around each hole."""
    return [ring[:, 0] for ring in cv2.findContours(plane.astype(np.uint8), mode, method)[0]]


def write_yolo(out: Path, classes: dict[int, str], masked: list[MaskedImage], instances: bool) -> None:
    """A part is one polygon, into which a cut of one pixel leads to each hole, since YOLO knows neither."""
    inside = [image.name for image in masked if 'images' in Path(image.name).parts]
    refuse(out, 'no folder named images below that of the photographs, which YOLO would look for labels in', inside)
    for photograph, name, mask in masked:
        lines = []
        for i, plane in objects_of(mask, list(classes), True):
            path, *holes = sorted(
                contours(plane, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE), key=lambda ring: ring[:, 0].min()
            )
            for hole in holes:  # from the left: the first pixel of the path beside a hole is of the outer ring or done
                start = hole[:, 0].argmin()
                x, y = hole[start]
                beside = np.flatnonzero((path[:, 1] == y) & (path[:, 0] <= x))
                cut = beside[path[beside, 0].argmax()]
                ring = np.roll(hole, -start, axis=0)
                path = np.concatenate([path[: cut + 1], ring, ring[:1], path[cut:]])
            steps = np.diff(path, axis=0, append=path[:1])
            path = path[(steps != np.roll(steps, 1, axis=0)).any(axis=1)] if len(path) > 1 else path
            points = (np.resize(path, (max(len(path), 3), 2)) + NEAR) / mask.shape[::-1]
            lines.append(' '.join([str(list(classes).index(i)), *(f'{value:.7g}' for value in points.ravel())]))
        write_atomically((out / 'labels' / name).with_suffix('.txt'), '\n'.join(lines).encode())
        (out / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photograph, out / 'images' / name)
    names = json.dumps(list(classes.values()), ensure_ascii=False)  # JSON is YAML
    write_atomically(out / 'data.yaml', f'train: images\nval: images\nnames: {names}\n'.encode())


def write_labelme(out: Path, classes: dict[int, str], masked: list[MaskedImage], instances: bool) -> None:
    """Polygons in the order in which LabelMe draws them: what is in a hole, be it background, comes after its part."""
    for photograph, name, mask in masked:
        canvas, parts, file = Image.new('L', mask.shape[::-1]), [], (out / name).with_suffix('.json')
        for i in map(int, np.unique(mask)):
            groups = ndimage.label(mask == i, np.ones((3, 3)))[0]
            numbers, _ = ndimage.label(mask == i)  # not over corners, where parts of other classes may cross
            for n, (rows, columns) in enumerate(ndimage.find_objects(numbers), start=1):
                (path,) = contours(numbers[rows, columns] == n, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
                path = path + (columns.start, rows.start)
                parts.append((cv2.contourArea(path), i, int(groups[path[0, 1], path[0, 0]]), path))
        shapes = []
        for _, i, group, path in sorted(parts, key=lambda part: -part[0]):
            points = np.resize(path, (max(len(path), 3), 2)).tolist()
            if i in classes or i != canvas.getpixel(tuple(points[0])):
                ImageDraw.Draw(canvas).polygon([tuple(point) for point in points], fill=i, outline=i)
                about = dict(label=classes.get(i, BACKGROUND), group_id=group if instances else 1, flags={})
                shapes.append(dict(about, points=points, shape_type='polygon'))
        image = Path(os.path.relpath(photograph, file.parent)).as_posix()
        size = dict(imageHeight=mask.shape[0], imageWidth=mask.shape[1])
        content = dict(version='5.5.0', flags={}, shapes=shapes, imagePath=image, imageData=None, **size)
        write_atomically(file, json.dumps(content, ensure_ascii=False).encode())


def write_cvat(out: Path, classes: dict[int, str], masked: list[MaskedImage], instances: bool) -> None:
    root = ElementTree.Element('annotations')
    ElementTree.SubElement(root, 'version').text = '1.1'
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, 'meta'), 'task'), 'labels')
    for name in classes.values():
        ElementTree.SubElement(ElementTree.SubElement(labels, 'label'), 'name').text = name
    for number, (_, name, mask) in enumerate(masked):
        size = dict(width=str(mask.shape[1]), height=str(mask.shape[0]))
        image = ElementTree.SubElement(root, 'image', id=str(number), name=name, **size)
        for i, plane in objects_of(mask, list(classes), instances):
            ((rows, columns),) = ndimage.find_objects(plane.astype(np.uint8))
            cut = plane[rows, columns]
            changes = np.flatnonzero(np.diff(cut.ravel(), prepend=False)).tolist()
            runs = np.diff([0, *changes, cut.size])  # of pixels outside and inside in turn
            where = dict(left=columns.start, top=rows.start, width=cut.shape[1], height=cut.shape[0], z_order=0)
            about = dict(label=classes[i], source='auto', occluded='0', rle=', '.join(map(str, runs)))
            ElementTree.SubElement(image, 'mask', **about, **{key: str(value) for key, value in where.items()})
    write_atomically(out / 'annotations.xml', ElementTree.tostring(root, 'utf-8', xml_declaration=True))


def write_voc(out: Path, classes: dict[int, str], masked: list[MaskedImage], instances: bool) -> None:
    ignored = any((image.mask == IGNORE_INDEX).any() for image in masked)
    names = {0: 'background', **classes} | ({IGNORE_INDEX: IGNORE} if ignored else {})
    odd = [name for name in names.values() if ':' in name or name.startswith('#')]
    refuse(out, 'names of classes without a colon, and no # in front, which mean something in labelmap.txt', odd)
    lines = [f'{name}:{",".join(map(str, VOC_COLOURS[i]))}::' for i, name in sorted(names.items())]
    write_atomically(out / 'labelmap.txt', '\n'.join(['# label:color_rgb:parts:actions', *lines, '']).encode())
    ids = [Path(image.name).with_suffix('').as_posix() for image in masked]
    write_atomically(out / 'ImageSets/Segmentation/default.txt', '\n'.join([*ids, '']).encode())
    for sample_id, (_, _, mask) in zip(ids, masked, strict=True):
        write_atomically(out / f'SegmentationClass/{sample_id}.png', encode_mask(mask))
        if instances:
            objects = np.where(mask == IGNORE_INDEX, IGNORE_INDEX, 0).astype(np.uint8)
            for number, (_, plane) in enumerate(objects_of(mask, list(classes), True), start=1):
                if number == IGNORE_INDEX:
                    raise ValueError(f'{sample_id}: expected fewer than {number} connected parts, which VOC can hold')
                objects[plane] = number
            write_atomically(out / f'SegmentationObject/{sample_id}.png', encode_mask(objects))


WRITERS = dict(coco=write_coco, yolo=write_yolo, labelme=write_labelme, cvat=write_cvat, voc=write_voc)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('masks', type=Path, help='folder of masks')
    parser.add_argument('--to', required=True, choices=WRITERS, help='whose form they take')
    parser.add_argument('--out', type=Path, required=True, help='folder to write, which is not there yet')
    parser.add_argument('--images', type=Path, help='folder of the photographs; default: that of the manifest')
    parser.add_argument('--instances', action='store_true', help='each connected part of a class is an instance')
    args = parser.parse_args()
    if find_spec('pycocotools') is None:
        parser.error(MISSING)
    if args.out.exists():
        parser.error(f'--out: expected the name of a new folder, got {args.out}, which is there')
    names, masked = read_masks(args.masks, args.images)
    classes = {i: name for i, name in enumerate(names) if (i, name) != (0, 'background')}
    ignored = [image.name for image in masked if (image.mask == IGNORE_INDEX).any()]
    if ignored and args.to in ('labelme', 'cvat'):
        classes[IGNORE_INDEX] = IGNORE
    WRITERS[args.to](args.out, classes, masked, args.instances)
    counts = Counter(i for image in masked for i in np.unique(image.mask).tolist())
    shown = ', '.join(f'{name} ({counts[i]})' for i, name in classes.items())
    print(f'{args.out}: {len(masked)} masks as {args.to}: {shown}')
    if args.instances or args.to == 'yolo':
        print('Each connected part of a class is an instance: objects that touch are one, a divided one is several')
    else:
        print('Instances are not told apart; --instances makes one of each connected part of a class')
    if ignored and args.to in ('coco', 'yolo'):
        print(f'{len(ignored)} masks ignore pixels, which are left out as background: {first_few(ignored)}')


if __name__ == '__main__':
    main()
