"""Take the marks of a review over: right tags into the tag table, bad masks into the list that stage 2 leaves out.

    python tools/converters/reviewed.py review.csv configs/seg/own_photographs.py

review.csv is what the page of tools/analysis/review.py saves. The config, one of stage 2, names photographs, masks and
tag table. The table of before stays beside the new one (tags.csv.1), and left_out.txt is written beside it, or what the
config has as left_out; images of an older one that this review does not mark stay in it.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from unicodedata import normalize

import aream_mm.quiet  # noqa: F401

from mmengine.registry import DATASETS, init_default_scope

from aream_mm.datasets.contents import contents, read_digest
from aream_mm.datasets.tags import class_name, image_id, read_tag_table, refuse, refuse_unknown
from aream_mm.files import read_lines, write_atomically

sys.path.append(str(Path(__file__).parents[1]))
from arguments import config_file  # noqa: E402
from options import OptionAction, load_config  # noqa: E402
from tag_sources import read_rows  # noqa: E402
from tag_table import write_tag_table  # noqa: E402

# The id of an image; one of the marks; tags as they were shown and as they should be; SHA-256 of photograph and mask.
HEADER = ['image', 'mark', 'tags', 'right_tags', 'photograph', 'mask']
MARKS = ('good', 'bad mask', 'wrong tag')


def read_review(path: Path) -> dict[str, dict[str, str]]:
    """Id of an image → its row."""
    if not path.is_file():
        raise FileNotFoundError(f'expected a review.csv as the page saves it, got {str(path)!r}, no file')
    (_, header), *rows = read_rows(path)[1]
    if header != HEADER:
        raise ValueError(f'{path}: expected the header {",".join(HEADER)!r}, got {",".join(header)[:80]!r}')
    refuse(path, f'{len(HEADER)} cells in a row', [str(row) for _, row in rows if len(row) != len(HEADER)])
    table = [dict(zip(HEADER, row, strict=True)) for _, row in rows]
    unknown = [f'{row["image"]} ({row["mark"]!r})' for row in table if row['mark'] not in MARKS]
    refuse(path, f'marks among {", ".join(MARKS)}', unknown)
    numbers = Counter(row['image'] for row in table)
    refuse(path, 'one row for each image', [image for image, number in numbers.items() if number > 1])
    return {row['image']: row for row in table}


def names(cell: str) -> set[str]:
    return {name for name in map(class_name, cell.split(';')) if name}


def right_table(path: Path, review: Path, rows: list[dict[str, str]], classes: list[str]) -> dict[str, list[str]]:
    """The tag table with the right tags of the rows.

    Raises:
        ValueError: no right tags, unknown ones, or other wrong ones in the table than those that were looked at.
    """
    refuse_unknown(review, {row['image']: names(row['right_tags']) for row in rows}, classes)
    same = [row['image'] for row in rows if names(row['tags']) == names(row['right_tags'])]
    refuse(review, 'right_tags other than the tags that are marked as wrong', same)
    table, right = read_tag_table(path), {normalize('NFC', row['image']): row for row in rows}
    changed = []
    for image, tags in table.items():
        row = right.get(image_id(image))
        if row and set(tags) not in (names(row['tags']), names(row['right_tags'])):
            changed.append(f'{image} ({";".join(tags)}, it was {row["tags"]})')
        table[image] = sorted(names(row['right_tags'])) if row else tags
    refuse(path, 'the tags that were looked at in the review', changed)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('review', type=Path, help='review.csv')
    parser.add_argument('config', type=config_file, help='config of stage 2')
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction, help='override settings, key=value')
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    source = cfg.train_dataloader.dataset
    if source.type != 'aream_mm.PseudoMaskDataset' or not str(source.tag_file).endswith('.csv'):
        parser.error(f'expected a config of stage 2 with a tag table (.csv), got {args.config}')
    review, tag_file = read_review(args.review), Path(source.tag_file)
    dataset = DATASETS.build(dict(type='aream_mm.ImageTagDataset', dataset=source.dataset, tag_file=source.tag_file))
    paths = {info['sample_id']: info['img_path'] for info in map(dataset.get_data_info, range(len(dataset)))}
    refuse(args.review, f'images of {dataset.inner.data_prefix["img_path"]}', sorted(review.keys() - paths.keys()))
    digests = contents(read_digest, [paths[image] for image in review])
    others = [row['image'] for row, now in zip(review.values(), digests, strict=True) if row['photograph'] != now]
    refuse(args.review, 'photographs as they were when they were marked', others)
    marked = [row for row in review.values() if row['mark'] == 'bad mask']
    files = [Path(source.mask_dir, f'{row["image"]}.png') for row in marked]
    digests = contents(read_digest, [file if file.is_file() else args.review for file in files])
    others = [row['image'] for row, now in zip(marked, digests, strict=True) if row['mask'] != now]
    refuse(args.review, f'masks in {source.mask_dir} as they were when they were marked', others)

    wrong = [row for row in review.values() if row['mark'] == 'wrong tag']
    before = read_tag_table(tag_file)
    table = right_table(
        tag_file, args.review, wrong, [name for name in dataset.metainfo['classes'][dataset.first_id :]]
    )
    list_file = Path(source.get('left_out') or tag_file.with_name('left_out.txt'))
    listed = [line for line in read_lines(list_file) if line] if list_file.is_file() else []
    kept = [line for line in listed if line.partition('  ')[2] not in review]
    bad = [f'{row["mask"]}  {row["image"]}' for row in review.values() if row['mark'] != 'good']
    changed = sum(set(table[image]) != set(before[image]) for image in table)
    if changed:
        write_tag_table(tag_file, table)
        manifest = Path(source.mask_dir, 'manifest.json')
        command = manifest.is_file() and json.loads(manifest.read_bytes()).get('command')
        told = f'{tag_file}: tags corrected of {changed}. Write their masks anew before stage 2'
        print(f'{told}: {command}' if command else told)
    write_atomically(list_file, ''.join(f'{line}\n' for line in [*kept, *bad]).encode())
    print(f'{list_file}: {len(bad)} masks of this review, {len(kept)} of older ones')
    if bad and not source.get('left_out'):
        print(f"left_out = data_root + '/{list_file.name}' in own.py leaves them out of stage 2")


if __name__ == '__main__':
    main()
