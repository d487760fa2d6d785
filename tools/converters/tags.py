"""Build the tag table that `ImageTagDataset` reads from tags in another form, and show how often each class is in it.

    python tools/converters/tags.py data/VOCdevkit/VOC2012/Annotations tags.csv

It tells by itself what the source is: annotations of VOC, LabelMe, Label Studio, CVAT, Roboflow or COCO, masks,
folders named after classes, JSON, CSV or Excel's exports, a cls_labels.npy. The table has the header `image,tags` and
one row per image, tags joined by `;`. Where a file of VOC's or LabelMe's has no photograph of its own name and folder
among those of --images, it is the one whose path is in the file. A bar chart of the classes is written beside the table
(tags.png).
"""

import argparse
import io
import os
from collections import Counter
from pathlib import Path

import aream_mm.quiet  # noqa: F401

from labelling_tools import OWN
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.config import Config
from prettytable import PrettyTable
from tag_sources import read_tags
from tag_table import write_tag_table

from aream_mm.datasets.images import first_few
from aream_mm.datasets.tags import class_name, read_tag_table, refuse
from aream_mm.files import read_lines, write_atomically

BARS, LABEL = 300, 100  # bars in the chart, and characters of a name, at most: drawing thousands takes minutes


def class_list(names: list[str], where: str) -> list[str]:
    """The names without white space around them, and without a leading background."""
    classes = list(filter(None, map(class_name, names)))
    refuse(where, 'each class once', [name for name, count in Counter(classes).items() if count > 1])
    if classes[:1] == ['background']:
        classes = classes[1:]
    if not classes:
        raise ValueError(f'{where}: expected names of classes, got {names}')
    return classes


def summarise(tags: dict[str, list[str]], frequencies: dict[str, int]) -> str:
    per_image = [len(names) for names in tags.values()]
    untagged = sorted(image for image, names in tags.items() if not names)
    unseen = [name for name, frequency in frequencies.items() if not frequency]
    table = PrettyTable(['class', 'images', '%'], align='r', float_format='.1')
    table.align['class'] = 'l'
    table.add_rows([[name, frequency, 100 * frequency / len(tags)] for name, frequency in frequencies.items()])
    mean = sum(per_image) / len(per_image)
    return '\n'.join(
        [
            f'Images: {len(tags)}; tags per image: mean {mean:.2f}, at most {max(per_image)}',
            str(table),
            f'Images without tags: {len(untagged)}' + (f': {first_few(untagged)}' if untagged else ''),
            f'Classes never seen: {len(unseen)}' + (f': {", ".join(unseen)}' if unseen else ''),
        ]
    )


def draw(frequencies: dict[str, int]) -> bytes:
    """A bar for each class, as PNG; of many classes for the most frequent ones."""
    bars = list(frequencies.items())
    if len(bars) > BARS:
        bars = sorted(bars, key=lambda bar: -bar[1])[:BARS]
    names, numbers = [name[:LABEL] for name, _ in bars], [number for _, number in bars]
    figure = Figure(figsize=(7, 1 + 0.22 * len(bars)), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.bar_label(axes.barh(range(len(bars)), numbers), padding=3, fontsize=8)
    axes.set_yticks(range(len(bars)), names, fontsize=8)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a dollar sign in a name is one
    axes.invert_yaxis()
    axes.set(xlabel='images with the class')
    axes.margins(x=0.1, y=0.01)
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=100)
    return content.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help='file or folder with the tags')
    parser.add_argument('out', type=Path, help='where to write the table (.csv); the chart has the same name (.png)')
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        '--classes',
        nargs='+',
        help='names of the classes, background left out or first; needed, in the order of the ids, for masks, and for '
        'a cls_labels.npy of other classes than VOC. A tag that is not among them is an error',
    )
    group.add_argument('--classes-file', help='the same from a text file, one name per line')
    parser.add_argument('--skip-difficult', action='store_true', help='leave out the difficult objects of VOC')
    parser.add_argument('--images', type=Path, help='folder of the photographs; default: that of own.py, if there')
    args = parser.parse_args()
    if args.out.suffix != '.csv':
        parser.error(f'out: expected a name that ends in .csv, got {args.out}')
    if Path(os.path.realpath(args.out)).is_relative_to(os.path.realpath(args.source)):
        parser.error(f'out: expected a name outside of the source, got {args.out} in {args.source}')
    if args.out.exists():
        try:
            read_tag_table(args.out)
        except ValueError as error:
            parser.error(f'out: expected a new name or a tag table, which is then kept beside it; {error}')
    names = read_lines(args.classes_file, 'utf-8-sig') if args.classes_file else args.classes
    classes = class_list(names, args.classes_file or '--classes') if names is not None else None

    own = Config.fromfile(OWN)
    images = Path(own.photographs.data_root, own.photographs.data_prefix.img_path)
    images = args.images or (images if images.is_dir() else None)
    # Where own.py has the same classes, without background, masks are counted from 0.
    first_id = int(classes != list(own.classes) or 'background' in map(class_name, names))
    kind, tags = read_tags(args.source, classes, args.skip_difficult, images, first_id)
    if not tags:
        raise ValueError(f'{args.source}: taken for {kind}; expected at least one image, got none')
    try:
        write_tag_table(args.out, tags)
    except ValueError as error:
        raise ValueError(f'{args.source}: {error}') from error
    counts = Counter(name for names in tags.values() for name in names)
    frequencies = {name: counts[name] for name in classes or sorted(counts)}
    write_atomically(args.out.with_suffix('.png'), draw(frequencies))
    print(f'Source: {args.source}, taken for {kind}')
    print(summarise(tags, frequencies))
    print(f'Table:  {args.out}')
    print(f'Chart:  {args.out.with_suffix(".png")}')


if __name__ == '__main__':
    main()
