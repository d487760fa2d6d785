"""Check the folder of PASCAL VOC 2012 as the configs read it; say what is missing and which archive has it.

    python tools/converters/voc.py data/VOCdevkit/VOC2012
    python tools/converters/voc.py data/VOCdevkit/VOC2012 --sbd benchmark_RELEASE

With --sbd, train_aug is made first from the SBD (Hariharan et al. 2011): SegmentationClassAug, with VOC's own masks
where it has them, aug.txt and trainaug.txt. Masks that are there already are kept, so an interrupted build goes on.

The exit code is 0 where stage 1 can train: images, the list trainaug.txt and tags. A part of VOC is fine.
"""

import argparse
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import Pool
from pathlib import Path
from typing import NamedTuple

import aream_mm.quiet  # noqa: F401

import numpy as np
from mmseg.datasets import PascalVOCDataset
from prettytable import PrettyTable
from scipy.io import loadmat

from aream_mm.datasets import ImageTagDataset
from aream_mm.datasets.images import SHOWN, first_few, open_image, read_header
from aream_mm.files import read_lines, write_atomically
from aream_mm.masks import IGNORE_INDEX, encode_mask
from aream_mm.progress import progress

OFFICIAL = dict(train=1464, val=1449, trainval=2913, aug=9118, trainaug=10582, test=1456)  # ids in each list
MASKS_OF = dict(  # of `test` the evaluation server alone has them
    train='SegmentationClass',
    val='SegmentationClass',
    trainval='SegmentationClass',
    aug='SegmentationClassAug',
    trainaug='SegmentationClassAug',
)
NUM_CLASSES = len(PascalVOCDataset.METAINFO['classes'])
TAG_FILES = ('cls_labels.npy', 'tags.csv')  # the configs name the first

VOC_ARCHIVE = 'from VOCtrainval_11-May-2012.tar'
TEST_ARCHIVE = "from VOC2012test.tar, the evaluation server's"
SBD_ARCHIVE = 'unpack benchmark.tgz (SBD), then --sbd benchmark_RELEASE'
TAGS = "the field's cls_labels.npy, or python tools/converters/tags.py {0}/Annotations {0}/tags.csv"
STAGE_1 = 'stage 1 (configs/aream_*_voc.py, aream_vit_animals.py)'
STAGE_2 = 'stage 2 (configs/seg/*_voc.py, *_animals.py)'

ABSENT = 'missing'
EMPTY = 'empty'
NO_ID = 'lines that are no id'
TWICE = 'ids listed twice'
SURPLUS = 'more ids than the official list'
OVERLAP = 'ids of val.txt'
NO_IMAGE = 'ids without a readable image'
NO_MASK = 'ids without a readable mask'
WRONG_SIZE = 'masks of another size than their image'
WRONG_IDS = f'masks with more than the ids 0..{NUM_CLASSES - 1} and {IGNORE_INDEX}'
MASK_FAULTS = (NO_MASK, WRONG_SIZE, WRONG_IDS)
NO_TAGS = 'tags'


class Row(NamedTuple):
    """A line of the table; one without a remedy has nothing wrong."""

    item: str
    found: str
    expected: str
    remedy: str = ''


class Job(NamedTuple):
    """An image to read the size of, and the masks to compare with it: folder → file."""

    id: str
    image: Path
    masks: dict[str, Path]


def counted(offenders: list[str]) -> str:
    return f'{len(offenders)}: {first_few(offenders)}'


def list_path(root: Path, name: str) -> Path:
    return root / 'ImageSets' / 'Segmentation' / f'{name}.txt'


def read_list(root: Path, name: str) -> list[str]:
    """Ids of a list as mmseg reads it: a blank line counts.

    Raises:
        FileNotFoundError: no such list.
        ValueError: it is no text.
    """
    path = list_path(root, name)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: expected a list with an id such as 2007_000032 in each line, got no file')
    return read_lines(path)


def read_mask(path: Path) -> np.ndarray | None:
    """The ids (H, W) of a mask, or (H, W, 3 or 4) of one that holds colours; None where no mask can be read."""
    try:
        with open_image(path) as mask:
            return np.array(mask)
    except Exception:  # decoders raise whatever they like
        return None


def unknown_ids(ids: np.ndarray) -> list[int]:
    return np.setdiff1d(ids, [*range(NUM_CLASSES), IGNORE_INDEX]).tolist()


# ---- building ----


def find_sbd(folder: Path) -> Path:
    """The folder of the SBD that has cls/, train.txt and val.txt, given it or one of the two above it.

    Raises:
        FileNotFoundError: something of it is missing.
    """
    for dataset in (folder / 'benchmark_RELEASE' / 'dataset', folder / 'dataset', folder):
        if (dataset / 'cls').is_dir():
            missing = [name for name in ('train.txt', 'val.txt') if not (dataset / name).is_file()]
            if missing:
                raise FileNotFoundError(
                    f'{dataset}: expected cls, train.txt and val.txt of the SBD, missing: {missing}'
                )
            return dataset
    raise FileNotFoundError(
        f'{folder}: expected the SBD as benchmark.tgz unpacks, with benchmark_RELEASE/dataset/cls; got no such folder'
    )


def write_mask(job: tuple[Path, Path]) -> str:
    """Write the mask of a .mat or PNG file to a PNG; return what is wrong with it, or ''."""
    source, target = job
    if source.suffix == '.png':
        write_atomically(target, source.read_bytes())
        return ''
    try:
        ids = loadmat(source)['GTcls']['Segmentation'][0, 0]
    except Exception as error:  # scipy raises whatever it trips over in a broken file
        return f'{source}: expected a .mat file with GTcls.Segmentation, got {type(error).__name__}: {error}'
    if ids.ndim != 2 or ids.dtype != np.uint8 or unknown_ids(ids):
        expected = f'uint8 ids 0..{NUM_CLASSES - 1} or {IGNORE_INDEX} of shape (H, W)'
        return f'{source}: expected {expected}, got {ids.dtype} {ids.shape} {unknown_ids(ids)[:SHOWN]}'
    write_atomically(target, encode_mask(ids))
    return ''


def write_masks(jobs: list[tuple[Path, Path]]) -> list[str]:
    """`write_mask` of each job, in processes: scipy crashes on some broken .mat files.

    Raises:
        ValueError: a file ends the process that reads it.
    """
    number = os.cpu_count() or 1
    try:
        with ProcessPoolExecutor(number) as pool:
            return list(progress(pool.map(write_mask, jobs), len(jobs)))
    except BrokenProcessPool:
        # The jobs are taken in their order, so the guilty one is among the first that are not done.
        left = [job for job in jobs if not job[1].is_file()][:number]
    guilty = [str(job[0]) for job in left if ends_its_process(job)]
    raise ValueError(f'expected masks that can be read, got such as end the process: {counted(guilty)}')


def ends_its_process(job: tuple[Path, Path]) -> bool:
    with ProcessPoolExecutor(1) as pool:
        return isinstance(pool.submit(write_mask, job).exception(), BrokenProcessPool)


def build_train_aug(root: Path, sbd: Path) -> None:
    """Make SegmentationClassAug, aug.txt and trainaug.txt from VOC and the SBD; the lists come last.

    aug is what only the SBD has a mask of: SBD train ∪ val without VOC train and val. trainaug is VOC train ∪ aug.
    Masks are written for trainaug and val.

    Raises:
        FileNotFoundError: a list or the SBD is missing.
        ValueError: masks are missing or unreadable, or a list with other ids is there already.
    """
    dataset = find_sbd(sbd)
    own = {name: read_list(root, name) for name in ('train', 'val')}
    of_sbd = {id for name in ('train', 'val') for id in read_lines(dataset / f'{name}.txt')}
    for folder, ids in ((root, {*own['train'], *own['val']}), (dataset, of_sbd)):
        if strange := sorted(repr(id) for id in ids if not re.fullmatch(r'\w*', id)):
            raise ValueError(
                f'{folder}: expected ids such as 2007_000032 in train.txt and val.txt, got {counted(strange)}'
            )
    aug = sorted(of_sbd - {*own['train'], *own['val'], ''})
    lists = dict(aug=aug, trainaug=sorted({*own['train'], *aug} - {*own['val']}))
    for name, ids in lists.items():
        if list_path(root, name).is_file() and (found := {*read_list(root, name)}) != {*ids}:
            raise ValueError(
                f'{list_path(root, name)}: expected the {len(ids)} ids that VOC and the SBD give, got {len(found)}, of '
                f'which {len(found - {*ids})} are not among them; move it away to have it written'
            )
    sources = {name: dataset / 'cls' / f'{name}.mat' for name in aug}
    sources |= {name: root / 'SegmentationClass' / f'{name}.png' for name in sorted({*own['train'], *own['val']})}
    if missing := [str(source) for source in sources.values() if not source.is_file()]:
        raise ValueError(f'expected a mask for each of {len(sources)} ids, missing for {counted(missing)}')
    jobs = [(source, root / 'SegmentationClassAug' / f'{name}.png') for name, source in sources.items()]
    pending = [(source, target) for source, target in jobs if not target.is_file()]
    print(f'SegmentationClassAug: {len(pending)} of {len(jobs)} masks to write')
    if faults := [fault for fault in write_masks(pending) if fault]:
        raise ValueError(f'{len(faults)} masks of the SBD cannot be read:\n' + '\n'.join(faults[:SHOWN]))
    for name, ids in lists.items():
        if not list_path(root, name).is_file():
            write_atomically(list_path(root, name), ''.join(f'{id}\n' for id in ids).encode())


# ---- checking ----


def inspect(job: Job) -> list[tuple[str, str | None, str]]:
    """What is wrong with an image and its masks: fault, folder of the mask (None: the image), offender."""
    header, faults = read_header(str(job.image)), []
    size = header and header.size
    if size is None:
        faults.append((NO_IMAGE, None, job.id))
    for folder, path in job.masks.items():
        ids = read_mask(path)
        if ids is None:
            faults.append((NO_MASK, folder, job.id))
            continue
        width_height = ids.shape[1::-1]
        if size not in (None, width_height):
            faults.append((WRONG_SIZE, folder, '{} ({}x{}, not {}x{})'.format(job.id, *width_height, *size)))
        if ids.ndim != 2:
            faults.append((WRONG_IDS, folder, f'{job.id} (colours)'))
        elif unknown := unknown_ids(ids):
            faults.append((WRONG_IDS, folder, f'{job.id} ({", ".join(map(str, unknown[:3]))})'))
    return faults


class Check:
    """What a VOC folder has, and what is wrong with it: `faults[list or tag file][fault]` are the offenders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lists: dict[str, list[str]] = {}
        self.faults: dict[str, dict[str, list[str]]] = defaultdict(dict)
        self.tag_file = next((root / name for name in TAG_FILES if (root / name).is_file()), None)
        self._check_lists()
        self._check_images_and_masks()
        self._check_tags()

    def _add(self, name: str, fault: str, offenders: list[str]) -> None:
        if offenders:
            self.faults[name][fault] = offenders

    def _check_lists(self) -> None:
        for name in OFFICIAL:
            if not list_path(self.root, name).is_file():
                self._add(name, ABSENT, [name])
                continue
            lines = read_list(self.root, name)
            ids = [line for line in lines if re.fullmatch(r'\w+', line)]
            self.lists[name] = list(dict.fromkeys(ids))
            self._add(name, EMPTY, [] if ids else [name])
            self._add(name, NO_ID, [repr(line) for line in lines if not re.fullmatch(r'\w+', line)])
            self._add(name, TWICE, [id for id, count in Counter(ids).items() if count > 1])
        val = {*self.lists.get('val', ())}
        for name in ('train', 'aug', 'trainaug'):
            self._add(name, OVERLAP, [id for id in self.lists.get(name, ()) if id in val])

    def _mask_folder(self, name: str) -> str | None:
        """Where the masks of a list are, if it has any."""
        folder = MASKS_OF.get(name)
        return None if folder == 'SegmentationClassAug' and not (self.root / folder).is_dir() else folder

    def _check_images_and_masks(self) -> None:
        folders = defaultdict(set)
        for name, ids in self.lists.items():
            for id in ids:
                folders[id] |= {self._mask_folder(name)} - {None}
        jobs = [
            Job(id, self.root / 'JPEGImages' / f'{id}.jpg', {of: self.root / of / f'{id}.png' for of in masks})
            for id, masks in sorted(folders.items())
        ]
        print(f'{self.root}: {len(jobs)} images and their masks')
        with Pool() as pool:
            inspected = list(progress(pool.imap(inspect, jobs, chunksize=8), len(jobs)))
        faults_of = {job.id: faults for job, faults in zip(jobs, inspected, strict=True)}
        for name, ids in self.lists.items():
            offenders = defaultdict(list)
            for id in ids:
                for fault, folder, offender in faults_of[id]:
                    if folder in (None, self._mask_folder(name)):
                        offenders[fault].append(offender)
            self.faults[name].update(offenders)

    def _check_tags(self) -> None:
        """Let stage 1's own data set find what is wrong with the tags, once it can find the images."""
        if self.tag_file is None:
            self._add('trainaug', NO_TAGS, [f'neither {" nor ".join(TAG_FILES)}'])
        elif not {ABSENT, EMPTY, NO_ID, NO_IMAGE} & {*self.faults['trainaug']}:
            inner = dict(
                type='mmseg.PascalVOCDataset',
                data_root=str(self.root),
                data_prefix=dict(img_path='JPEGImages'),
                ann_file='ImageSets/Segmentation/trainaug.txt',
            )
            try:
                ImageTagDataset(inner, tag_file=str(self.tag_file))
            except ValueError as error:
                self._add('trainaug', NO_TAGS, [str(error)])

    def wrong(self, name: str, but: Iterable[str] = ()) -> list[str]:
        """The faults of a list, those in `but` left out."""
        return [f'{name}.txt: {fault}' for fault in self.faults[name] if fault not in but]

    def uses(self) -> dict[str, list[str]]:
        """What the folder is for → what stands against it."""
        no_masks = [] if self._mask_folder('trainaug') else ['SegmentationClassAug: missing']
        no_tags = [f'trainaug.txt: {NO_TAGS}'] if NO_TAGS in self.faults['trainaug'] else []
        return {
            f'{STAGE_1} trains': self.wrong('trainaug', but=MASK_FAULTS),
            f'{STAGE_1} measures its CAMs on `train`': self.wrong('train') + no_tags,
            f'{STAGE_1} trains on tags from masks (tag_file=None)': self.wrong('trainaug', but=[NO_TAGS]) + no_masks,
            f'{STAGE_2} trains on pseudo masks': self.wrong('trainaug', but=[*MASK_FAULTS, NO_TAGS]),
            f'{STAGE_2} is measured on `val`': self.wrong('val'),
            f'{STAGE_2} predicts `test` for the evaluation server': self.wrong('test'),
        }

    def rows(self) -> list[Row]:
        rows = []
        for name in OFFICIAL:
            rows += [self._list_row(name), *self._fault_rows(name)]
        rows.append(self._folder_row('JPEGImages', NO_IMAGE, [*self.lists]))
        for folder in ('SegmentationClass', 'SegmentationClassAug'):
            lists = [name for name in self.lists if MASKS_OF.get(name) == folder]
            rows.append(self._folder_row(folder, NO_MASK, lists))
        ids = self.lists.get('trainaug', [])
        described = sum((self.root / 'Annotations' / f'{id}.xml').is_file() for id in ids)
        advice = '' if described == len(ids) else f'{VOC_ARCHIVE}; needed only to make tags'
        rows.append(Row('Annotations', f'{described} files', f'{len(ids)}, of trainaug', advice))
        found = self.tag_file.name if self.tag_file else ABSENT
        advice = '' if self.tag_file else TAGS.format(self.root)
        if found == TAG_FILES[1]:
            advice = f'set tag_file in the config, it names {TAG_FILES[0]}'
        return [*rows, Row('tag file', found, ' or '.join(TAG_FILES), advice)]

    def _list_row(self, name: str) -> Row:
        ids, official = self.lists.get(name), OFFICIAL[name]
        if ids is None:
            return Row(f'{name}.txt', ABSENT, f'{official} ids', remedy(name, ABSENT))
        part = ' (a part of it)' if 0 < len(ids) < official else ''
        advice = remedy(name, SURPLUS) if len(ids) > official else ''
        return Row(f'{name}.txt', f'{len(ids)} ids{part}', f'{official} ids', advice)

    def _fault_rows(self, name: str) -> list[Row]:
        rows = []
        for fault, offenders in self.faults[name].items():
            if fault == NO_TAGS and self.tag_file:
                rows.append(Row(f'  {fault}', offenders[0], 'of each id', TAGS.format(self.root)))
            elif fault not in (ABSENT, NO_TAGS):  # which have a row without this
                rows.append(Row(f'  {fault}', counted(offenders), 'none', remedy(name, fault)))
        return rows

    def _folder_row(self, folder: str, fault: str, lists: list[str]) -> Row:
        ids = {id for name in lists for id in self.lists[name]}
        if not (self.root / folder).is_dir():
            if folder == 'SegmentationClassAug':
                return Row(folder, ABSENT, 'optional, for tags from masks', SBD_ARCHIVE)
            return Row(folder, ABSENT, f'{len(ids)} files', VOC_ARCHIVE)
        without = {id for name in lists for id in self.faults[name].get(fault, ())}
        return Row(folder, f'{len(ids - without)} files', f'{len(ids)}, of {", ".join(lists)}')


def remedy(name: str, fault: str) -> str:
    """Where that comes from which is missing from a list, or wrong in it."""
    if fault == NO_ID:
        return 'an id such as 2007_000032 in each line'
    if fault == TWICE:
        return 'remove the repetitions'
    if MASKS_OF.get(name) != 'SegmentationClassAug' or fault == NO_IMAGE:
        return TEST_ARCHIVE if name == 'test' else VOC_ARCHIVE
    return SBD_ARCHIVE if fault in (ABSENT, NO_MASK) else f'remove it; {SBD_ARCHIVE}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', type=Path, help='folder VOC2012 of VOCdevkit')
    parser.add_argument('--sbd', type=Path, help='folder of the SBD, benchmark_RELEASE: make train_aug from it first')
    args = parser.parse_args()
    if not args.root.is_dir():
        raise FileNotFoundError(f'{args.root}: expected the folder VOC2012 of VOCdevkit, got no folder')
    if args.sbd:
        build_train_aug(args.root, args.sbd)
    check = Check(args.root)
    table = PrettyTable(Row._fields, align='l', max_width=50)
    table.add_rows(check.rows())
    print(table)
    for use, obstacles in check.uses().items():
        print(f'{use}: {"no; " + ", ".join(obstacles) if obstacles else "yes"}')
    sys.exit(1 if next(iter(check.uses().values())) else 0)


if __name__ == '__main__':
    main()
