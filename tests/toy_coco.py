"""A COCO 2014 folder in miniature: drawn images, and annotations of boxes and crowds in COCO's format."""

import json
import sys
from pathlib import Path

import numpy as np
from demo_scenes import draw_image
from PIL import Image
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

# torchvision's names by official id, as a source that is not ours; 'N/A' stands for the ids that were left out.
NAMES = FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta['categories']
OFFICIAL = {i: name for i, name in enumerate(NAMES) if i and name != 'N/A'}
SIZE = (96, 80)  # width, height


def box(x0: int, y0: int, x1: int, y1: int) -> list[list[float]]:
    """A polygon of the pixels x0 <= x < x1, y0 <= y < y1."""
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def run_lengths(region: np.ndarray) -> dict:
    """COCO's uncompressed RLE of a bool region: runs of 0, 1, 0, … down the columns."""
    counts, value = [0], False
    for pixel in region.flatten(order='F').tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return dict(counts=counts, size=list(region.shape))


def write_annotations(
    root: Path, split: str, annotated: list[list[dict]], categories: dict[int, str] = OFFICIAL
) -> Path:
    """`instances_<split>.json` with so many images, whose annotations name category_id and segmentation at least."""
    images, annotations = [], []
    for i, instances in enumerate(annotated, start=1):
        name = f'COCO_{split}_{i:012d}.jpg'
        images.append(dict(id=i, file_name=name, width=SIZE[0], height=SIZE[1]))
        for instance in instances:
            annotations.append(dict(dict(id=len(annotations), image_id=i, iscrowd=0), **instance))
    path = root / 'annotations' / f'instances_{split}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = [dict(id=i, name=name) for i, name in categories.items()]
    # Neither images nor annotations are in any order in COCO's files.
    path.write_text(json.dumps(dict(images=images[::-1], annotations=annotations, categories=listed)))
    return path


def run_converter(monkeypatch, *arguments) -> None:
    """`python tools/converters/coco.py` in this process, with one worker unless told otherwise."""
    monkeypatch.setattr(sys, 'argv', ['coco.py', '--workers', '1', *map(str, arguments)])
    import coco

    coco.main()


def make_coco(root: Path, monkeypatch, train: int = 4, val: int = 2) -> Path:
    """A converted set of images with two boxes and a crowd each; one more of each split shows nothing."""
    crowd = np.zeros((SIZE[1], SIZE[0]), bool)
    crowd[60:, 50:] = True
    for split, count in (('train2014', train), ('val2014', val)):
        images = [
            [
                dict(category_id=13, segmentation=box(5 + i, 5, 45, 40)),
                dict(category_id=90, segmentation=box(30, 20 + i, 80, 70)),
                dict(category_id=1, segmentation=run_lengths(crowd), iscrowd=1),
            ]
            for i in range(count)
        ]
        write_annotations(root, split, [*images, []])
        (root / split).mkdir()
        for i in range(1, count + 2):
            image, _ = draw_image(np.random.default_rng(i), 96)
            Image.fromarray(image).crop((0, 0, *SIZE)).save(root / split / f'COCO_{split}_{i:012d}.jpg')
    run_converter(monkeypatch, root)
    return root
