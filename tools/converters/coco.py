"""Turn COCO 2014's instance annotations into masks, image lists and tag tables.

python tools/converters/coco.py ROOT

ROOT holds `annotations/instances_train2014.json` and `annotations/instances_val2014.json` (and the images in
`train2014/` and `val2014/`, which are not read). For each split this writes

    masks/<split>/<image>.png     palette PNG: 0 background, 1..80 the classes in official order, 255 ignored
    <split>.txt                   the images, one name without ending in a line
    tags_<split>.csv              image,tags: file name, and names of its classes joined by ';' (none: nothing)

Where instances overlap, the smaller covers the larger. The outline of a crowd (`iscrowd`) takes in what lies between
its members, and COCO's own evaluation leaves it out, so its pixels are ignored unless another instance covers them.
Its class is a tag all the same: it is in the image. So is the class of an instance that smaller ones cover
completely; tags of the table and tags derived from the masks may therefore differ.

Masks that were made from the same annotation file are kept, so an interrupted run goes on where it was.
"""

import argparse
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from multiprocessing import Pool
from pathlib import Path

import aream_mm.quiet  # noqa: F401

import numpy as np
from PIL.PngImagePlugin import PngInfo
from tag_table import write_tag_table

from aream_mm.datasets.coco import CLASSES
from aream_mm.datasets.images import SHOWN, open_image
from aream_mm.files import write_atomically
from aream_mm.masks import IGNORE_INDEX, encode_mask
from aream_mm.progress import progress

try:
    from pycocotools import mask as coco_mask
except ModuleNotFoundError as error:
    raise SystemExit("pycocotools reads COCO's polygons and is missing: pip install '.[coco]'") from error

LEFT_OUT = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # of the official ids 1..90
CATEGORIES = dict(zip((i for i in range(1, 91) if i not in LEFT_OUT), CLASSES, strict=True))
MASK_IDS = {category: mask_id for mask_id, category in enumerate(CATEGORIES, start=1)}
MADE_FROM = 'Made from'  # text chunk of a mask: the rules it was painted by and the annotations it shows
RULES = '81 ids, smaller over larger, crowds ignored'
MAX_PIXELS = 2**26
FIELDS = dict(
    images=dict(id=int, file_name=str, width=int, height=int),
    annotations=dict(id=int, image_id=int, category_id=int),
    categories=dict(id=int, name=str),
)


def has_fields(entry: object, fields: dict[str, type]) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(field), kind) for field, kind in fields.items())


def refuse(path: Path, expected: str, offenders: list[str]) -> None:
    """Raise a ValueError that lists the first offenders and counts them, if there are any."""
    if offenders:
        shown = '; '.join(offenders[:SHOWN]) + ('; …' if len(offenders) > SHOWN else '')
        raise ValueError(f'{path}: expected {expected}; got {len(offenders)} otherwise: {shown}')


def read_annotations(path: Path) -> tuple[list[dict], dict[int, list[dict]], str]:
    """The images by file name, the annotations of each image id, and the SHA-256 of the file.

    Raises:
        ValueError: the file is no JSON of instances, its categories are not the official 80, or an annotation names an
            image or a category that does not exist.
    """
    print(f'Reading {path}')
    content = path.read_bytes()
    try:
        data = json.loads(content)
    except (RecursionError, ValueError) as error:
        raise ValueError(f'{path}: expected COCO annotations as JSON, got {error}') from error
    missing = [key for key in FIELDS if not isinstance(data, dict) or not isinstance(data.get(key), list)]
    refuse(path, 'COCO instances with images, annotations and categories', [f'no {key!r}' for key in missing])
    for key, fields in FIELDS.items():
        refuse(path, f'{key} with {", ".join(fields)}', [f'{e!r:.80}' for e in data[key] if not has_fields(e, fields)])
    for key, field in (('images', 'id'), ('images', 'file_name')):
        counts = Counter(entry[field] for entry in data[key])
        refuse(path, f'a {field} of its own for each of the {key}', [f'{v!r:.80}' for v, n in counts.items() if n > 1])
    # The masks get these names, and must not end up anywhere else.
    strange = [f'{i["file_name"]!r:.80}' for i in data['images'] if not re.fullmatch(r'[\w-]+\.\w+', i['file_name'])]
    refuse(path, 'file names such as COCO_train2014_000000000009.jpg', strange)
    sizes = [i for i in data['images'] if not 0 < i['width'] * i['height'] <= MAX_PIXELS or i['width'] < 0]
    refuse(path, f'images of 1 to {MAX_PIXELS} pixels', [f'{i["width"]} × {i["height"]}' for i in sizes])
    names = {category['id']: category['name'] for category in data['categories']}
    differences = [
        f'id {i} is {names.get(i, "missing")!r} instead of {CATEGORIES.get(i, "left out")!r}'
        for i in sorted(names.keys() | CATEGORIES.keys())
        if names.get(i) != CATEGORIES.get(i)
    ]
    refuse(path, "COCO's official 80 categories with ids from 1 to 90", differences)
    known = {image['id'] for image in data['images']}
    annotations = defaultdict(list)
    strays = []
    for annotation in data['annotations']:
        image, category = annotation['image_id'], annotation['category_id']
        if image not in known or category not in CATEGORIES:
            strays.append(f'annotation {annotation["id"]} is of image {image}, category {category}')
        annotations[image].append(annotation)
    refuse(path, 'annotations of the images and categories listed', strays)
    images = sorted(data['images'], key=lambda image: image['file_name'])
    return images, annotations, hashlib.sha256(content).hexdigest()


def runs_in(text: str) -> list[int]:
    """The runs of an RLE that is a text: 5 bits a character; the fourth and later ones less the last but one."""
    runs, value, bits = [], 0, 0
    for character in text.encode():
        value |= (character - 48 & 31) << bits
        bits += 5
        if not character - 48 & 32:  # the last one, whose highest bit is the sign
            value -= (character - 48 & 16) << bits - 4
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = bits = 0
    return runs


def read_region(annotation: dict, height: int, width: int) -> np.ndarray:
    """(height, width) bool: the pixels of an instance.

    Raises:
        ValueError: its segmentation is neither polygons nor an RLE of the size of the image.
    """
    try:
        segmentation = annotation['segmentation']
        if isinstance(segmentation, dict):
            if list(segmentation['size']) != [height, width]:
                raise ValueError(f'an RLE of size {segmentation["size"]}')
            counts = segmentation['counts']
            runs = counts if isinstance(counts, list) else runs_in(counts)
            if sum(runs) != height * width or min(runs) < 0:  # pycocotools would leave the rest uninitialised
                least = min(runs, default=0)
                raise ValueError(f'an RLE whose runs add up to {sum(runs)} pixels, the shortest of {least}')
            return coco_mask.decode(coco_mask.frPyObjects(dict(segmentation, counts=runs), height, width)) > 0
        if odd := [polygon for polygon in segmentation if len(polygon) % 2]:
            raise ValueError(f'a polygon of {len(odd[0])} coordinates')
        # A little outside is usual; pycocotools walks along the edges by the pixel, without an end where they are far.
        if far := [x for polygon in segmentation for x in polygon if not abs(x) <= 2 * max(height, width)]:
            raise ValueError(f'a coordinate of {far[0]}')
        # Fewer than three corners enclose nothing, and pycocotools would take four numbers for a box.
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
        if not polygons:
            return np.zeros((height, width), bool)
        return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))) > 0
    except Exception as error:  # pycocotools raises TypeError, ValueError or plain Exception
        raise ValueError(
            f'annotation {annotation.get("id")} of image {annotation["image_id"]}: expected a segmentation of polygons '
            f'or an RLE of size [{height}, {width}], got {error!r}'
        ) from error


def paint(annotations: list[dict], height: int, width: int) -> np.ndarray:
    """(height, width) uint8 ids of one image; of instances of equal area the later one is on top."""
    regions = [(annotation, read_region(annotation, height, width)) for annotation in annotations]
    regions.sort(key=lambda pair: (not pair[0].get('iscrowd'), -pair[1].sum()))
    mask = np.zeros((height, width), np.uint8)
    for annotation, region in regions:
        mask[region] = IGNORE_INDEX if annotation.get('iscrowd') else MASK_IDS[annotation['category_id']]
    return mask


def write_mask(task: tuple[Path, str, dict, list[dict]]) -> None:
    path, made_from, image, annotations = task
    try:
        mask = paint(annotations, image['height'], image['width'])
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    text = PngInfo()
    text.add_text(MADE_FROM, made_from)
    write_atomically(path, encode_mask(mask, pnginfo=text))


def origin(path: Path) -> str | None:
    """What a mask was made from, '' where another program wrote it; None where it is no whole image."""
    try:
        with open_image(path) as mask:
            made_from = mask.info.get(MADE_FROM, '')
            mask.verify()
        return made_from
    except Exception:  # decoders raise whatever they like
        return None


def find_pending(paths: list[Path], made_from: str) -> set[Path]:
    """The masks that are missing, incomplete or made from other annotations.

    Raises:
        ValueError: masks of another program are in the way.
    """
    existing = [path for path in paths if path.is_file()]
    if existing:
        print(f'Looking through {len(existing)} masks in {existing[0].parent}')
    origins = {path: origin(path) for path in progress(existing)} if existing else {}
    foreign = [path.name for path, found in origins.items() if found == '']
    refuse(paths[0].parent, 'a folder for the masks of this tool alone; move away what others wrote', foreign)
    return {path for path in paths if origins.get(path) != made_from}


def convert(root: Path, split: str, workers: int) -> None:
    """Write masks, then the tag table and the list of one split."""
    images, annotations, digest = read_annotations(root / 'annotations' / f'instances_{split}.json')
    made_from = f'instances_{split}.json, SHA-256 {digest}; {RULES}'
    paths = [root / 'masks' / split / Path(image['file_name']).with_suffix('.png') for image in images]
    pending = find_pending(paths, made_from)
    print(f'{len(pending)} of {len(paths)} masks to write to {root / "masks" / split}')
    tasks = [
        (path, made_from, image, annotations.get(image['id'], []))
        for path, image in zip(paths, images, strict=True)
        if path in pending
    ]
    if tasks:
        with Pool(workers) as pool:
            list(progress(pool.imap(write_mask, tasks, chunksize=16), len(tasks)))

    tags = {
        image['file_name']: {CATEGORIES[entry['category_id']] for entry in annotations.get(image['id'], [])}
        for image in images
    }
    write_tag_table(root / f'tags_{split}.csv', tags)
    names = [Path(image['file_name']).stem for image in images]
    write_atomically(root / f'{split}.txt', ('\n'.join(names) + '\n').encode())
    untagged = sum(not names for names in tags.values())
    print(f'{root / split}.txt, {root / f"tags_{split}.csv"}: {len(images)} images, {untagged} of them without tags')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', type=Path, help='folder with annotations/')
    parser.add_argument('--splits', nargs='+', default=['train2014', 'val2014'], help='default: train2014 val2014')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes; default: one per CPU')
    args = parser.parse_args()
    files = [args.root / 'annotations' / f'instances_{split}.json' for split in args.splits]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise FileNotFoundError(f'expected the annotation files of COCO, missing: {", ".join(missing)}')
    for split in args.splits:
        convert(args.root, split, args.workers)


if __name__ == '__main__':
    main()
