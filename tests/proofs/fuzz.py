"""Feed broken inputs to readers, data sets, converters and checkpoint loading, and see that they load or refuse them.

    python tests/proofs/fuzz.py --inputs 6000 --out fuzz.json
    python tests/proofs/fuzz.py --case 'checkpoint, predict:17'   # one input again: shows its error, keeps its files

Every input is made from a small good one that is drawn on the spot, by the seed, its kind and its number alone, and
goes into the code that a user's command runs. It is in order that the input loads, and that it is refused by a
ValueError or an OSError whose message names the file, or, where the tool goes on without the file, by what it prints.
Failures are: any other error, a message without the name, no end within --limit seconds, a crash, a file written or
removed outside the output of the tool, a program started, and code of the input run. A table is printed, and for each
failure the `--case` that repeats it; the exit code is 1 if there are any.

Needs POSIX (fork, FIFOs) and pycocotools.
"""

import argparse
import contextlib
import gc
import importlib.util
import io
import json
import multiprocessing
import os
import pickle
import random
import resource
import shlex
import shutil
import signal
import socket
import stat
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint
from mmengine.utils import ProgressBar
from PIL import Image
from prettytable import PrettyTable
from scipy.io import savemat

from aream_mm.checkpoint import load_fitting_checkpoint
from aream_mm.datasets import COCO2014Dataset, ImageTagDataset, MaskDataset, PseudoMaskDataset
from aream_mm.datasets.images import damage, read_header
from aream_mm.datasets.tags import read_tag_table
from aream_mm.files import write_atomically
from aream_mm.registry import MODELS

TOOLS = Path(__file__).parents[2] / 'tools'
CLASSES = ('background', 'cat', 'dog')
SIZE = (24, 18)  # width, height of the good images
MEMORY = 16 * 2**30  # bytes of address space that an input may ask for
LOAD = [dict(type='LoadImageFromFile')]
LOAD_ALL = [*LOAD, dict(type='LoadAnnotations')]
MODEL = dict(
    type='aream_mm.CAMSegmentor',
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[0] * 3, std=[255] * 3, bgr_to_rgb=True),
    backbone=dict(
        type='aream_mm.AttentionViT',
        name='vit_tiny_patch16_224',
        num_class_tokens=2,
        img_size=32,
        architecture=dict(embed_dim=12, depth=2, num_heads=2),
    ),
    head=dict(type='aream_mm.CAMHead', num_classes=2, in_channels=12),
    attention_loss=dict(type='aream_mm.AReAMLoss', layer_index=1),
    test_cfg=dict(background=0.5, class_threshold=0.0),
)


class Case(NamedTuple):
    """One broken input.

    what      was done to it
    enter     runs the code; returns what it says about the input if that is a refusal
    names     one of them has to be in an error; an empty string where an error names the file by itself
    writable  files and folders that it may write
    """

    what: str
    enter: Callable[[], str | None]
    names: tuple[str, ...]
    writable: tuple[Path, ...] = ()


class Outcome(NamedTuple):
    """What became of it: 'loaded', 'refused' or 'failed', why, and how many seconds it took."""

    verdict: str
    what: str
    why: str
    seconds: float


KINDS: dict[str, Callable[[random.Random, Path], Case]] = {}


def kind(name: str) -> Callable:
    """Registers a function that makes the case in a folder of its own."""

    def register(make: Callable) -> Callable:
        KINDS[name] = make
        return make

    return register


# Breaking files


DAMAGES = 'truncated', 'header only', 'bits flipped', 'zero-filled', 'extended', 'cut out', 'noise', 'empty'


def damaged(rng: random.Random, content: bytes) -> tuple[str, bytes]:
    """Bytes with one thing done to them."""
    at, length = rng.randrange(len(content) + 1), rng.choice((1, 4, 64, 1024))
    array = bytearray(content)
    match rng.choice(DAMAGES):
        case 'truncated':
            return f'truncated to {at} bytes', content[:at]
        case 'header only':
            return 'header only', content[: rng.choice((2, 8, 16, 32, 64, 128))]
        case 'bits flipped':
            for _ in range(count := rng.choice((1, 2, 8, 64))):
                # Most of the meaning of a file stands at its beginning.
                at = rng.randrange(min(len(array), rng.choice((64, 512, 10**9))))
                array[at] ^= 1 << rng.randrange(8)
            return f'{count} bits flipped', bytes(array)
        case 'zero-filled':
            array[at : at + length] = bytes(len(array[at : at + length]))
            return f'{length} bytes at {at} zero', bytes(array)
        case 'extended':
            return 'extended', content + rng.choice((bytes(length), rng.randbytes(length), content))
        case 'cut out':
            return f'{length} bytes at {at} cut out', content[:at] + content[at + length :]
        case 'noise':
            array[at : at + length] = rng.randbytes(length)
            return f'{length} bytes of noise at {at}', bytes(array)
    return 'empty', b''


LINKS = 'dangling link', 'link to itself', 'two links', 'link to its folder', '/dev/zero'
SPECIAL_FILES = 'folder', 'FIFO', 'socket', *LINKS


def put_special(rng: random.Random, path: Path) -> str:
    """Something at `path` that is no regular file."""
    what = rng.choice(SPECIAL_FILES)
    if what == 'folder':
        path.mkdir()
    elif what == 'FIFO':
        os.mkfifo(path)
    elif what == 'socket':
        before = os.getcwd()
        os.chdir(path.parent)  # the address may have 107 bytes only
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
        os.chdir(before)
    elif what == 'two links':
        path.symlink_to(f'{path.name}.other')
        path.with_name(f'{path.name}.other').symlink_to(path.name)
    else:
        targets = {'dangling link': 'nowhere', 'link to itself': path.name, 'link to its folder': '.'}
        path.symlink_to(targets.get(what, what))
    return what


def put(rng: random.Random, path: Path, content: bytes) -> str:
    """A damaged file at `path`, or now and then no file at all."""
    if rng.random() < 0.1:
        return put_special(rng, path)
    what, content = damaged(rng, content)
    path.write_bytes(content)
    return what


# Images


def noise(rng: random.Random, mode: str = 'RGB', size: tuple[int, int] = SIZE) -> Image.Image:
    flat = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(flat).convert(mode)


def saved(image: Image.Image, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, **options)
    return content.getvalue()


def good_image(rng: random.Random) -> tuple[str, str, bytes]:
    """What it is, an ending that fits, and its content."""
    exif = Image.Exif()
    exif[0x0112] = rng.randrange(1, 9)
    frames = dict(save_all=True, append_images=[noise(rng)])
    sort, ending, mode, options = rng.choice(
        (
            ('plain', 'jpg', 'RGB', dict(format='JPEG')),
            ('progressive', 'jpeg', 'RGB', dict(format='JPEG', progressive=True)),
            ('grey', 'JPG', 'L', dict(format='JPEG')),
            ('CMYK', 'jpg', 'CMYK', dict(format='JPEG')),
            ('rotated', 'jpg', 'RGB', dict(format='JPEG', exif=exif)),
            ('MPO', 'jpg', 'RGB', dict(format='MPO', **frames)),
            ('plain', 'png', 'RGB', dict(format='PNG')),
            ('palette', 'png', 'P', dict(format='PNG')),
            ('alpha', 'png', 'RGBA', dict(format='PNG')),
            ('16 bits', 'png', 'I;16', dict(format='PNG')),
            ('1 bit', 'png', '1', dict(format='PNG')),
            ('rotated', 'png', 'RGB', dict(format='PNG', exif=exif)),
            ('animated', 'png', 'RGB', dict(format='PNG', **frames)),
            ('plain', 'webp', 'RGB', dict(format='WEBP')),
            ('lossless alpha', 'webp', 'RGBA', dict(format='WEBP', lossless=True)),
            ('animated', 'webp', 'RGB', dict(format='WEBP', **frames)),
            ('rotated', 'webp', 'RGB', dict(format='WEBP', exif=exif)),
            ('plain', 'tif', 'RGB', dict(format='TIFF')),
            ('LZW', 'tiff', 'RGB', dict(format='TIFF', compression='tiff_lzw')),
            ('JPEG inside', 'tif', 'RGB', dict(format='TIFF', compression='jpeg')),
            ('CMYK', 'tif', 'CMYK', dict(format='TIFF')),
            ('float', 'tif', 'F', dict(format='TIFF')),
            ('rotated', 'tif', 'RGB', dict(format='TIFF', exif=exif)),
            ('pages', 'tif', 'RGB', dict(format='TIFF', **frames)),
            ('plain', 'bmp', 'RGB', dict(format='BMP')),
            ('palette', 'bmp', 'P', dict(format='BMP')),
            ('GIF', 'png', 'P', dict(format='GIF')),
            ('PPM', 'bmp', 'RGB', dict(format='PPM')),
            ('JPEG 2000', 'jpg', 'RGB', dict(format='JPEG2000')),
            ('EPS', 'png', 'L', dict(format='EPS')),
            ('PDF', 'jpg', 'RGB', dict(format='PDF')),
            ('TGA', 'bmp', 'RGB', dict(format='TGA')),
            ('ICO', 'png', 'RGBA', dict(format='ICO', sizes=[(16, 16)])),
        )
    )
    image = noise(rng, 'L').convert('I;16') if mode == 'I;16' else noise(rng, mode)
    return f'{sort} {ending}', ending, saved(image, **options)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))


CRAFTED = 'header', 'text', 'exif', 'profile', 'JPEG size', 'JPEG exif', 'BMP size', 'TIFF tag', 'WebP size'


def crafted_image(rng: random.Random) -> tuple[str, str, bytes]:
    """One whose checksums are right and whose content is hostile."""
    side = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 100_000, 20_000))
    bytes_of_row = rng.choice((b'\0' * 100, rng.randbytes(50)))
    crafted = rng.choice(CRAFTED)
    head, *rest = b'\x89PNG\r\n\x1a\n', chunk(b'IDAT', zlib.compress(bytes_of_row)), chunk(b'IEND', b'')
    depth, colours = rng.choice((1, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 5))
    if crafted == 'header':
        size = struct.pack('>IIBBBBB', side, rng.choice((side, 1)), depth, colours, *rng.choices((0, 0, 0, 1), k=3))
        return f'PNG of side {side}', 'png', head + chunk(b'IHDR', size) + b''.join(rest)
    if crafted in ('text', 'exif', 'profile'):
        image = saved(noise(rng), format='PNG')
        text = zlib.compress(b'x' * 10**7)
        odd = {
            'text': rng.choice(
                (chunk(b'zTXt', b'k\0\0' + text), chunk(b'iTXt', b'k\0\1\0\0\0' + text), chunk(b'tEXt', b''))
            ),
            'exif': chunk(
                b'eXIf', rng.choice((b'', b'II*\0', b'Exif\0\0MM\0*' + rng.randbytes(40), rng.randbytes(20)))
            ),
            'profile': chunk(b'iCCP', rng.choice((b'', b'x\0\0' + text, rng.randbytes(30)))),
        }[crafted]
        at = rng.choice((33, len(image) - 12))  # behind the header, or before the end
        return f'PNG with odd {crafted}', 'png', image[:at] + odd + image[at:]
    if crafted == 'JPEG size':
        image = bytearray(saved(noise(rng), format='JPEG'))
        at = image.index(b'\xff\xc0') + 5
        image[at : at + 4] = struct.pack('>HH', *rng.choices((0, 1, 17, 65535), k=2))
        return 'JPEG of another size', 'jpg', bytes(image)
    if crafted == 'JPEG exif':
        exif = b'Exif\0\0' + rng.choice(
            (b'', b'II*\0', b'MM\0*\0\0\0\x08\xff\xff', b'II*\0\x08\0\0\0' + rng.randbytes(60))
        )
        return 'JPEG with odd exif', 'jpg', saved(noise(rng), format='JPEG', exif=exif)
    if crafted == 'BMP size':
        image = bytearray(saved(noise(rng), format='BMP'))
        image[18:26] = struct.pack('<ii', *rng.choices((0, 1, -1, -(2**31), 2**31 - 1, 100_000), k=2))
        return 'BMP of another size', 'bmp', bytes(image)
    if crafted == 'WebP size':
        image = bytearray(saved(noise(rng, 'RGBA'), format='WEBP'))
        image[24:30] = rng.choice((b'\xff' * 6, b'\0' * 6))
        return 'WebP of another size', 'webp', bytes(image)
    image = bytearray(saved(noise(rng), format='TIFF'))
    directory = struct.unpack('<I', image[4:8])[0]
    entry = directory + 2 + 12 * rng.randrange(struct.unpack('<H', image[directory : directory + 2])[0])
    image[entry + 2 : entry + 12] = struct.pack(
        '<HII', rng.randrange(14), rng.choice((0, 1, 2**16, 2**32 - 1)), rng.choice((0, 1, side, 2**32 - 1))
    )
    return 'TIFF with an odd tag', 'tif', bytes(image)


NO_UTF_8 = b'\xff\xfe'.decode(errors='surrogateescape')
NAMES = 'bad', 'a\nb', 'ü' * 100, 'n' * 240, NO_UTF_8, 'x..', '-x', 'a b;c,d', '%s{}', '\u200f'


def bad_image(rng: random.Random, folder: Path) -> tuple[str, Path]:
    """What was put into the folder under the name of an image, and where."""
    name = rng.choice(NAMES) if rng.random() < 0.1 else 'bad'
    sort, ending, content = (crafted_image if rng.random() < 0.3 else good_image)(rng)
    if rng.random() < 0.1:
        ending = rng.choice(('jpg', 'png', 'webp', 'tif', 'bmp'))
    path = folder / f'{name}.{ending}'
    if rng.random() < 0.15:
        path.write_bytes(content)
        return sort, path
    return f'{sort}: {put(rng, path, content)}', path


def spelt(path: Path) -> tuple[str, ...]:
    """The ways in which a message may spell a name."""
    return path.stem, repr(path.stem)[1:-1], path.stem.encode('unicode_escape').decode()


@kind('image, reader')
def image_reader(rng: random.Random, box: Path) -> Case:
    what, path = bad_image(rng, box)

    def enter() -> str | None:
        return f'{path}: unreadable' if read_header(str(path)) is None or damage(str(path)) else None

    return Case(what, enter, spelt(path))


def photographs(box: Path, mask: Image.Image | None = None) -> dict:
    """A folder with one good photograph, and the config of the data set over it."""
    for folder in ('images', 'masks'):
        (box / folder).mkdir(parents=True)
    noise(random.Random(0)).save(box / 'images/good.jpg')
    if mask is not None:
        mask.save(box / 'masks/good.png')
    return dict(
        type='aream_mm.PhotographDataset',
        metainfo=dict(classes=CLASSES),
        data_root=str(box),
        data_prefix=dict(img_path='images', seg_map_path='masks'),
    )


def read_all(dataset) -> None:
    for i in range(len(dataset)):
        dataset[i]


@kind('image, data set')
def image_data_set(rng: random.Random, box: Path) -> Case:
    config = photographs(box)
    what, path = bad_image(rng, box / 'images')
    tags = np.array({'good': np.ones(2, np.float32), path.stem: np.ones(2, np.float32)}, object)
    np.save(box / 'tags.npy', tags, allow_pickle=True)
    enter = lambda: read_all(ImageTagDataset(config, str(box / 'tags.npy'), pipeline=LOAD))  # noqa: E731
    return Case(what, enter, spelt(path))


def tool(name: str) -> Any:
    """The module of a tool, `converters/coco` or the like."""
    path = TOOLS / f'{name}.py'
    sys.path.append(str(path.parent))  # where a program finds the modules beside it
    spec = importlib.util.spec_from_file_location(f'fuzzed_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # functions that are sent to other processes are found by it
    spec.loader.exec_module(module)
    return module


tool = cache(tool)


def run_tool(name: str, *arguments: str | Path) -> str:
    """Run its `main`, and return what it printed.

    Raises:
        ValueError: the exit code says that something is wrong; with what was printed.
    """
    printed = io.TextIOWrapper(io.BytesIO(), 'utf-8', write_through=True)  # as strict as a terminal
    sys.argv = [name, *map(str, arguments)]
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            tool(name).main()
        except SystemExit as exit_:
            if exit_.code:
                raise ValueError(f'{printed.buffer.getvalue().decode()} {exit_.code}') from exit_
    return printed.buffer.getvalue().decode()


@kind('images, predict')
def images_predict(rng: random.Random, box: Path) -> Case:
    images, out = box / 'images', box / 'out'
    images.mkdir(parents=True)
    noise(rng).save(images / 'good.jpg')
    bad = []
    for i in range(4):
        (images / str(i)).mkdir()
        bad.append(bad_image(rng, images / str(i)))

    def enter() -> str | None:
        try:
            run_tool('predict', images, config_file(), good_checkpoint_file(), '--out', out)
        except ValueError as error:
            for what, path in bad if 'photographs: masks and overlays in' in str(error) else ():
                # A folder is none that is named like an image, and one without images is in order.
                written = (out / 'masks' / path.relative_to(images)).with_suffix('.png').is_file()
                if not written and not path.is_dir() and not any(name in str(error) for name in spelt(path)):
                    raise RuntimeError(f'{what}, {path} is neither predicted nor named: {error}') from error
            return str(error)

    return Case('; '.join(what for what, _ in bad), enter, tuple(n for _, path in bad for n in spelt(path)), (out,))


# Masks


def bad_mask(rng: random.Random, path: Path) -> str:
    mask = Image.fromarray(np.array(noise(rng, 'L')) % 3)
    if rng.random() < 0.2:
        sort, _, content = crafted_image(rng) if rng.random() < 0.5 else good_image(rng)
        path.write_bytes(content)
        return sort
    if rng.random() < 0.2:
        mask = rng.choice(
            (
                Image.new('L', (SIZE[0], 1)),
                Image.new('L', SIZE, rng.randrange(256)),
                Image.new('I;16', SIZE, 300),
                Image.new('RGB', SIZE),
                Image.new('LA', SIZE),
                Image.new('1', SIZE, 1),
                mask.convert('P'),
            )
        )
        mask.save(path)
        return f'{mask.mode} {mask.size}'
    return put(rng, path, saved(mask, format='PNG'))


@kind('mask, data set')
def mask_data_set(rng: random.Random, box: Path) -> Case:
    config = photographs(box)
    what = bad_mask(rng, box / 'masks/good.png')
    enter = lambda: read_all(MaskDataset(config, pipeline=LOAD_ALL, test_mode=True))  # noqa: E731
    return Case(what, enter, ('good.png', 'good.jpg'))


@kind('mask, tags of the data set')
def mask_tags(rng: random.Random, box: Path) -> Case:
    config = photographs(box)
    what = bad_mask(rng, box / 'masks/good.png')
    enter = lambda: read_all(ImageTagDataset(config, pipeline=LOAD))  # noqa: E731
    return Case(what, enter, ('good.png', 'good.jpg', "['good']", ': good'))


@kind('mask, COCO data set')
def mask_coco(rng: random.Random, box: Path) -> Case:
    photographs(box)
    what = bad_mask(rng, box / 'masks/good.png')
    (box / 'list.txt').write_text('good\n')
    prefix = dict(img_path='images', seg_map_path='masks')
    config = dict(type='aream_mm.COCO2014Dataset', data_root=str(box), data_prefix=prefix, ann_file='list.txt')

    def enter() -> None:
        COCO2014Dataset(**{k: v for k, v in config.items() if k != 'type'})
        read_all(MaskDataset(config, pipeline=LOAD_ALL))

    return Case(what, enter, ('good.png', 'good.jpg'))


@kind('pseudo mask, data set')
def pseudo_mask(rng: random.Random, box: Path) -> Case:
    config = photographs(box)
    manifest = json.dumps(dict(classes=CLASSES, mIoU=50.0))
    name = rng.choice(('good.png', 'manifest.json'))
    if name == 'good.png':
        what = bad_mask(rng, box / 'masks' / name)
        (box / 'masks/manifest.json').write_text(manifest)
    else:
        Image.new('L', SIZE).save(box / 'masks/good.png')
        what, content = broken_json(rng, json.loads(manifest))
        what = f'{what}: {put(rng, box / "masks" / name, content)}' if rng.random() < 0.5 else what
        if not os.path.lexists(box / 'masks' / name):
            (box / 'masks' / name).write_bytes(content)
    enter = lambda: read_all(PseudoMaskDataset(config, str(box / 'masks'), pipeline=LOAD_ALL))  # noqa: E731
    return Case(f'{name} {what}', enter, (name, 'good.jpg'))


def convert_tags(box: Path, source: Path, *arguments: str) -> Callable[[], None]:
    def enter() -> None:
        run_tool('converters/tags', source, box / 'out/tags.csv', *arguments)
        read_tag_table(box / 'out/tags.csv')

    return enter


@kind('mask, tag converter')
def mask_converter(rng: random.Random, box: Path) -> Case:
    photographs(box, Image.new('L', SIZE, 1))
    what = bad_mask(rng, box / 'masks/bad.png')
    return Case(what, convert_tags(box, box / 'masks', '--classes', *CLASSES), ('bad.png',), (box / 'out',))


# Tag tables and other texts

CELLS = (
    '', 'cat', 'cat;dog', 'horse', 'background', ';;', ' cat ', '"', 'a"b', 'x' * 200_000, '\0', '../../x.jpg',
    '/etc/passwd',
    'C:\\x.jpg', 'a\nb.jpg', 'n' * 5000 + '.jpg', '..', '.', '/', '1', '0', 'true', '=1+1', '$x$', '\u202e',
    'e\u0301.jpg',
    ';'.join(map(str, range(3000))),
)  # fmt: skip


TABLE_CHANGES = (
    'cell',
    'cell',
    'cell',
    'column',
    'no header',
    'twice',
    'separator',
    'encoding',
    'line end',
    'bytes',
    'many',
)


def bad_table(rng: random.Random) -> tuple[str, bytes]:
    """A table of images and tags with something wrong."""
    rows = [['image', 'tags'], ['good.jpg', 'cat'], ['sub/1.png', 'cat;dog'], ['2.jpg', '']]
    what, separator, encoding, line_end = [], ',', 'utf-8', '\n'
    for _ in range(rng.choice((1, 1, 2, 3))):
        change = rng.choice(TABLE_CHANGES)
        what.append(change)
        row = rng.choice(rows)
        if change == 'cell':
            row[rng.randrange(len(row))] = cell = rng.choice(CELLS)
            what[-1] = f'cell {cell[:20]!r}'
        elif change == 'column':
            for each in rows if rng.random() < 0.5 else [row]:
                each[:] = rng.choice((each[:1], [*each, rng.choice(CELLS)], each[::-1]))
        elif change == 'no header':
            rows = rows[1:] or rows
        elif change == 'twice':
            rows.append(list(row))
        elif change == 'separator':
            separator = rng.choice(('\t', ';', '|', ' ', '', ',,'))
        elif change == 'encoding':
            encoding = rng.choice(('utf-8-sig', 'utf-16', 'utf-16-le', 'utf-32', 'cp037'))
        elif change == 'line end':
            line_end = rng.choice(('\r\n', '\r', '\n\n', '\0', ''))
        elif change == 'many':
            rows += [[f'{i}.jpg', f'tag {i}'] for i in range(rng.choice((10, 3000)))]
    content = line_end.join(separator.join(row) for row in rows).encode(encoding, 'replace')
    if 'bytes' in what:
        broken, content = damaged(rng, content)
        what.append(broken)
    return ', '.join(what), content


def bad_file(rng: random.Random, path: Path, content: bytes) -> str:
    """The content at `path`, which is broken already, or something that is no file."""
    if rng.random() < 0.05:
        return put_special(rng, path)
    path.write_bytes(content)
    return ''


@kind('tag table, data set')
def table_data_set(rng: random.Random, box: Path) -> Case:
    config = photographs(box)
    what, content = bad_table(rng)
    what += bad_file(rng, box / 'tags.csv', content)
    enter = lambda: read_all(ImageTagDataset(config, str(box / 'tags.csv'), pipeline=LOAD))  # noqa: E731
    return Case(what, enter, ('tags.csv',), ())


@kind('spreadsheet, tag converter')
def table_converter(rng: random.Random, box: Path) -> Case:
    what, content = bad_table(rng)
    path = box / f'bad.{rng.choice(("csv", "tsv", "txt"))}'
    what += bad_file(rng, path, content)
    return Case(what, convert_tags(box, path, *rng.choice(((), ('--classes', *CLASSES)))), ('bad.',), (box / 'out',))


JSON_VALUES = (
    None, -1, 0, 1, 2**70, 1e308, float('nan'), float('-inf'), True, '', ' ', 'x', '../../x.jpg',
    '/etc/passwd.jpg', 'C:\\x.jpg',
    'a\nb.jpg', '..', '\0', '\ud800', 'n' * 3000 + '.jpg', [], {}, [[]], {'': None}, [1, 2], 10**9, '1', [[1,
    2, 3, 4, 5]],
    [[0] * 5 + ['x']], dict(counts=[1], size=[18, 24]), dict(counts='!!', size=[18, 24]), dict(counts=[-5,
    437], size=[18, 24]),
    [[1e308, 1e308, -1e308, 0, 5, 5]], [[float('nan')] * 6], [[10**9, 0, 10**9, 10**9, 0, 10**9]],
    dict(counts='z' * 10_000, size=[18, 24]),
)  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value, with every key or index of it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield value, key
        yield from places(child)


def broken_json(rng: random.Random, value: Any) -> tuple[str, bytes]:
    """JSON of the value with something wrong; the value is changed."""
    if rng.random() < 0.3:
        if rng.random() < 0.2:
            depth = 200_000
            return 'deep', b'[' * depth + b']' * rng.choice((0, depth))
        return damaged(rng, json.dumps(value).encode(rng.choice(('utf-8', 'utf-16', 'utf-8-sig'))))
    what = []
    for _ in range(rng.choice((1, 1, 2))):
        container, key = rng.choice(list(places(value)))
        if rng.random() < 0.3:
            del container[key]
            what.append(f'without {key!r}')
        elif isinstance(container, list) and rng.random() < 0.3:
            container.append(deepcopy(container[key]))
            what.append(f'[{key}] twice')
        else:
            container[key] = rng.choice(JSON_VALUES)
            what.append(f'{key!r} is {container[key]!r:.40}')
        if not value:
            break
    return ', '.join(what), json.dumps(value).encode()


def coco_instances() -> dict:
    """Instances of two images, as good ones are."""
    width, height = SIZE
    images = [dict(id=i, file_name=f'good_{i}.jpg', width=width, height=height) for i in (1, 2)]
    square, runs = [[2, 2, 9, 2, 9, 9, 2, 9]], dict(counts=[100, width * height - 100], size=[height, width])
    annotations = [
        dict(id=0, image_id=1, category_id=17, iscrowd=0, segmentation=square),
        dict(id=1, image_id=1, category_id=18, iscrowd=1, segmentation=runs),
        dict(id=2, image_id=2, category_id=1, iscrowd=0, segmentation=square),
    ]
    categories = [dict(id=i, name=name) for i, name in tool('converters/coco').CATEGORIES.items()]
    return dict(images=images, annotations=annotations, categories=categories)


@kind('JSON, tag converter')
def json_converter(rng: random.Random, box: Path) -> Case:
    value = rng.choice(
        (
            {'good.jpg': ['cat'], 'sub/1.jpg': ['cat', 'dog']},
            [dict(image='good.jpg', tags=['cat']), dict(image='1.jpg', tags=[])],
            coco_instances(),
        )
    )
    what, content = broken_json(rng, value)
    path = box / f'bad.{rng.choice(("json", "json", "jsonl"))}'
    what += bad_file(rng, path, content)
    return Case(what, convert_tags(box, path), ('bad.',), (box / 'out',))


XML = """<?xml version="1.0"?><!DOCTYPE annotation [{entities}]><annotation><filename>{filename}</filename>
<object><name>{name}</name><difficult>0</difficult></object></annotation>"""
LAUGHS = '<!ENTITY a0 "ha">' + ''.join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))


@kind('annotation, tag converter')
def xml_converter(rng: random.Random, box: Path) -> Case:
    folder = box / 'Annotations'
    folder.mkdir()
    (folder / 'good.xml').write_text(XML.format(entities='', filename='good.jpg', name='cat'))
    entities, name = rng.choice((('', 'dog'), (LAUGHS, '&a9;'), ('<!ENTITY x SYSTEM "file:///etc/passwd">', '&x;')))
    content = XML.format(entities=entities, filename=rng.choice(('bad.jpg', '../../bad.jpg', '')), name=name).encode()
    if rng.random() < 0.1:
        content = b'<a>' * 100_000
    what = put(rng, folder / 'bad.xml', content) if rng.random() < 0.7 else bad_file(rng, folder / 'bad.xml', content)
    return Case(f'{name} {what}', convert_tags(box, folder), ('bad', 'Annotations'), (box / 'out',))


@kind('class folder, tag converter')
def class_folders(rng: random.Random, box: Path) -> Case:
    folder, names = box / 'photographs', ('photographs',)
    for name in ('cat', rng.choice((*NAMES[:-2], 'dog;x', '.hidden', 'background'))):
        (folder / name).mkdir(parents=True)
        what, path = bad_image(rng, folder / name)
        names += spelt(folder / name)
    if rng.random() < 0.3:
        for link in ('a', 'b'):
            (folder / 'cat' / link).symlink_to(rng.choice(('.', '..')))
            what += ', links to folders above'
    return Case(what, convert_tags(box, folder), names, (box / 'out',))


@kind('list, data set')
def image_list(rng: random.Random, box: Path) -> Case:
    """Lists of ids; of those that load, masks are written as PseudoMaskHook does."""
    config = photographs(box)
    noise(rng).save(box / 'x.jpg')
    if rng.random() < 0.7:
        config = dict(config, type='mmseg.PascalVOCDataset')
    config['ann_file'] = 'list.txt'
    hostile = (
        '../x',
        '../images/good',
        str(box / 'images/good'),
        '/etc/passwd',
        '..',
        '',
        'good',
        './good',
        'a\0',
        'n' * 5000,
    )
    content = '\n'.join(['good', rng.choice((*hostile, '\u0085', 'C:\\x'))]).encode()
    what = content[-20:].decode()
    if rng.random() < 0.5:
        what, content = damaged(rng, content)
    what += bad_file(rng, box / 'list.txt', content)
    np.save(box / 'tags.npy', {name: np.ones(20 if 'VOC' in config['type'] else 2) for name in ('good', '../x', 'x')})
    if 'VOC' in config['type']:
        del config['metainfo']
    (box / 'out').mkdir()

    def enter() -> None:
        dataset = ImageTagDataset(config, str(box / 'tags.npy'), pipeline=LOAD)
        for i in range(len(dataset)):
            write_atomically(box / 'out/pseudo_masks' / f'{dataset[i]["sample_id"]}.png', b'')

    return Case(what, enter, ('list.txt',), (box / 'out/pseudo_masks',))


# Pickles


class Bomb:
    """Pickled, it is a call that leaves the canary behind."""

    def __init__(self, rng: random.Random) -> None:
        canary = str(CANARY)
        self.call = rng.choice(
            (
                (os.system, (f'touch {shlex.quote(canary)}',)),
                (exec, (f'open({canary!r}, "w")',)),
                (eval, (f'open({canary!r}, "w")',)),
                (open, (canary, 'w')),
                (getattr, (HistoryBuffer, '__init__')),
                (np.load, (canary,)),
                (torch.load, (canary,)),
                (np.memmap, (canary, 'uint8', 'w+', 0, (1,))),
            )
        )

    def __reduce__(self) -> tuple:
        return self.call


CANARY = Path()  # set for each run


@kind('cls_labels.npy, data set')
def npy_data_set(rng: random.Random, box: Path) -> Case:
    config = photographs(box)
    what, content = bad_npy(rng)
    what += bad_file(rng, box / 'tags.npy', content)
    enter = lambda: read_all(ImageTagDataset(config, str(box / 'tags.npy'), pipeline=LOAD))  # noqa: E731
    return Case(what, enter, ('tags.npy',))


@kind('cls_labels.npy, tag converter')
def npy_converter(rng: random.Random, box: Path) -> Case:
    what, content = bad_npy(rng)
    what += bad_file(rng, box / 'bad.npy', content)
    return Case(what, convert_tags(box, box / 'bad.npy', '--classes', 'cat', 'dog'), ('bad.npy',), (box / 'out',))


def bad_npy(rng: random.Random) -> tuple[str, bytes]:
    good = {'good': np.array([1, 0], np.float32), 'sub/1': np.array([1, 1], np.float64)}
    what, value = rng.choice(
        (
            ('dict', good),
            ('wrong shape', dict(good, bad=np.ones(3))),
            ('two axes', dict(good, bad=np.ones((2, 2)))),
            ('NaN', dict(good, bad=np.array([np.nan, 1]))),
            ('texts', dict(good, bad=np.array(['x', 'y']))),
            ('objects', dict(good, bad=np.array([None, {}], object))),
            ('other keys', {1: np.ones(2), None: np.ones(2), '../../x': np.ones(2), 'a\nb': np.ones(2)}),
            ('list', [1, 2]),
            ('object array', np.array([good, good], object)),
            ('numbers', np.ones((5, 2))),
            ('record', np.zeros(3, [('a', 'f4'), ('b', 'O')])),
            ('code', dict(good, bad=Bomb(rng))),
            ('code in a list', [Bomb(rng)]),
            ('empty', {}),
        )
    )
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    content = file.getvalue()
    if rng.random() < 0.15:
        shape = rng.choice(('()', '(1000000, 1000000)', '(-1,)', f'open({str(CANARY)!r}, "w")', '(' * 99))
        header = f"{{'descr': '|O', 'fortran_order': False, 'shape': {shape}}}".encode().ljust(117) + b'\n'
        version = bytes([rng.choice((1, 1, 2, 3, 9)), 0])
        content = b'\x93NUMPY' + version + struct.pack('<H', len(header)) + header + pickle.dumps(value)
        what += ', odd header'
    if rng.random() < 0.1:
        content = rng.choice((pickle.dumps(value), b'text', b'PK\3\4' + content))
        what += ', no npy'
    if rng.random() < 0.4:
        broken, content = damaged(rng, content)
        what += f', {broken}'
    return what, content


# Checkpoints


@cache
def config_file() -> Path:
    resize = dict(type='Resize', scale=(32, 32), keep_ratio=True)
    loader = dict(dataset=dict(pipeline=[*LOAD, resize, dict(type='PackSegInputs')]))
    path = CANARY.with_name('config.py')
    Config(dict(default_scope='mmseg', model=MODEL, test_dataloader=loader)).dump(path)
    return path


@cache
def good_weights() -> dict:
    return MODELS.build(MODEL).state_dict()


def good_checkpoint() -> dict:
    """As tools/train.py writes it."""
    dataset_meta = dict(classes=list(CLASSES), palette=[[0, 0, 0], [1, 1, 1], [2, 2, 2]])
    meta = dict(epoch=1, iter=10, seed=0, cfg='x = 1', dataset_meta=dataset_meta)
    scalars = {'train/loss': HistoryBuffer([1.0], [1])}
    hub = dict(
        log_scalars=scalars, runtime_info=dict(iter=10, epoch=1, loss=np.float64(1)), resumed_keys=dict(iter=True)
    )
    return dict(meta=meta, state_dict=dict(good_weights()), message_hub=hub, optimizer={}, param_schedulers=[])


@cache
def good_checkpoint_file() -> Path:
    path = CANARY.with_name('checkpoint.pth')
    torch.save(good_checkpoint(), path)
    return path


def bad_checkpoint(rng: random.Random, good: dict) -> tuple[str, bytes]:
    """A checkpoint with something wrong; `good` is changed."""
    key = 'model' if 'model' in good else 'state_dict'
    meta = good.get('meta', {})
    change = rng.choice(
        (
            'bytes',
            'bytes',
            'bytes',
            'weights',
            'NaN',
            'shapes',
            'code',
            'code',
            'config',
            'other',
            'place',
            'place',
            'text',
            'zip',
        )
    )
    what = change
    weights = good[key]
    name = rng.choice(list(weights))
    if change == 'weights':
        weights[name] = rng.choice((None, 1.0, 'x', [1], np.ones(3), {}, torch.ones(0), weights[name].to_sparse()))
    elif change == 'NaN':
        weights[name] = torch.full_like(weights[name], torch.nan)
    elif change == 'shapes':
        weights[name] = torch.ones(rng.choice(((), (3,), (1, 2, 3))))
    elif change == 'code':
        place = rng.choice((good, weights, meta))
        place[rng.choice(list(place) or ['x'])] = Bomb(rng)
    elif change == 'config':
        code = f'open({str(CANARY)!r}, "w")'
        meta['config'] = meta['cfg'] = code
        good.get('message_hub', {}).setdefault('runtime_info', {})['cfg'] = code
    elif change == 'other':
        good = rng.choice(
            ({}, [], None, 3, 'text', torch.ones(3), dict(state_dict=None), dict(state_dict={}),
            dict(state_dict=[1]), {1: 2},
             dict(state_dict={'conv.weight': torch.ones(3)}), {key: {3: torch.ones(1)}}, {'model': {'x': 1}})
        )  # fmt: skip
    elif change == 'place':
        container, at = rng.choice([place for place in places(good) if place[0] is not weights])
        if rng.random() < 0.4:
            del container[at]
            what = f'without {at!r}'
        else:
            container[at] = rng.choice(JSON_VALUES)
            what = f'{at!r} is {container[at]!r:.40}'
    if change == 'text':
        return what, rng.choice(
            (b'', b'not a checkpoint', b'version https://git-lfs.github.com/spec/v1\n', b'<html></html>')
        )
    file = io.BytesIO()
    if change == 'zip' or rng.random() < 0.1:
        pickled = rng.choice((pickle.dumps, lambda value: pickle.dumps(value, 2)))
        file.write(pickled({k: v for k, v in good.items() if k != key} if isinstance(good, dict) else good))
        what += ', pickle alone'
    else:
        torch.save(good, file, _use_new_zipfile_serialization=rng.random() < 0.8)
    content = file.getvalue()
    if change == 'bytes':
        what, content = damaged(rng, content)
    return what, content


def bad_checkpoint_file(rng: random.Random, box: Path, good: dict) -> tuple[str, str]:
    what, content = bad_checkpoint(rng, good)
    what += bad_file(rng, box / 'bad.pth', content)
    return what, str(box / 'bad.pth')


@kind('checkpoint, test')
def checkpoint_test(rng: random.Random, box: Path) -> Case:
    """As tools/test.py and tools/train.py with load_from."""
    what, path = bad_checkpoint_file(rng, box, good_checkpoint())

    def enter() -> None:
        model = MODELS.build(MODEL)
        load_fitting_checkpoint(model, path, strict=False)
        load_checkpoint(model, path, map_location='cpu')

    return Case(what, enter, ('bad.pth',))


@kind('checkpoint, predict')
def checkpoint_predict(rng: random.Random, box: Path) -> Case:
    what, path = bad_checkpoint_file(rng, box, good_checkpoint())
    photographs(box)

    def enter() -> None:
        run_tool('predict', box / 'images', config_file(), path, '--out', box / 'out')

    return Case(what, enter, ('bad.pth',), (box / 'out',))


@cache
def runner() -> Runner:
    """One that is about to resume."""
    dataset = photographs(CANARY.with_name('photographs'))
    loader = dict(dataset=dict(dataset, pipeline=[]), sampler=dict(type='DefaultSampler'), batch_size=1)
    made = Runner(
        MODELS.build(MODEL),
        str(CANARY.with_name('work_dir')),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_scope='mmseg',
        experiment_name='fuzz',
    )
    made._train_loop = made.build_train_loop(made._train_loop)
    return made


@kind('checkpoint, resume')
def checkpoint_resume(rng: random.Random, box: Path) -> Case:
    """As tools/train.py --resume, up to the loading of the optimizer."""
    what, path = bad_checkpoint_file(rng, box, good_checkpoint())
    resuming = runner()

    def enter() -> None:
        load_fitting_checkpoint(resuming.model, path, resume=True, strict=False)
        resuming.resume(path, resume_optimizer=False, resume_param_scheduler=False, map_location='cpu')

    return Case(what, enter, ('bad.pth',))


@kind('checkpoint, authors')
def checkpoint_authors(rng: random.Random, box: Path) -> Case:
    weights = {'cls_token': torch.ones(1, 2, 12), 'pos_embed': torch.ones(1, 6, 12), 'head.bias': torch.ones(2)}
    weights |= {'head.weight': torch.ones(2, 12, 3, 3), 'blocks.0.norm1.weight': torch.ones(12)}
    what, path = bad_checkpoint_file(rng, box, dict(model=weights))
    (box / 'out').mkdir()
    enter = lambda: run_tool('converters/authors_checkpoint', path, box / 'out/ours.pth') and None  # noqa: E731
    return Case(what, enter, ('bad.pth',), (box / 'out',))


# Whole data sets


@kind('COCO, converter')
def coco_converter(rng: random.Random, box: Path) -> Case:
    (box / 'annotations').mkdir()
    what, content = broken_json(rng, coco_instances())
    what += bad_file(rng, box / 'annotations/instances_train2014.json', content)
    if rng.random() < 0.1:
        (box / 'masks/train2014').mkdir(parents=True)
        what += f', mask {bad_mask(rng, box / "masks/train2014/good_1.png")}'
    enter = lambda: run_tool('converters/coco', box, '--splits', 'train2014', '--workers', '1') and None  # noqa: E731
    writable = box / 'masks', box / 'train2014.txt', box / 'tags_train2014.csv'
    writable += tuple(path.with_name(f'{path.name}.tmp') for path in writable[1:])
    return Case(what, enter, ('instances_train2014.json', 'masks/train2014', 'good_1.png'), writable)


@kind('VOC, converter')
def voc_converter(rng: random.Random, box: Path) -> Case:
    voc, sbd = box / 'VOC2012', box / 'benchmark_RELEASE/dataset'
    for folder in (voc / 'JPEGImages', voc / 'SegmentationClass', voc / 'ImageSets/Segmentation', sbd / 'cls'):
        folder.mkdir(parents=True)
    for name in 'abc':
        noise(rng).save(voc / f'JPEGImages/{name}.jpg')
        Image.new('L', SIZE, 8).save(voc / f'SegmentationClass/{name}.png')
        ids = np.full(SIZE[::-1], 8, np.uint8)
        savemat(sbd / f'cls/{name}.mat', dict(GTcls=dict(Segmentation=ids)))
    lists = voc / 'ImageSets/Segmentation'
    contents = {
        lists / 'train.txt': 'a\n',
        lists / 'val.txt': 'b\n',
        sbd / 'train.txt': 'a\nc\n',
        sbd / 'val.txt': 'b\n',
    }
    for path, content in contents.items():
        path.write_text(content)
    np.save(voc / 'cls_labels.npy', {name: np.eye(20, dtype=np.float32)[7] for name in 'abc'})
    files = [
        *contents,
        voc / 'JPEGImages/c.jpg',
        voc / 'SegmentationClass/a.png',
        sbd / 'cls/c.mat',
        voc / 'cls_labels.npy',
    ]
    path = rng.choice(files)
    content = path.read_bytes()
    path.unlink()
    if path.suffix == '.txt' and rng.random() < 0.5:
        what = rng.choice(('../../../x', '/etc/passwd', str(box / 'x'), 'a b', '\0', '..', 'n' * 5000, 'é'))
        path.write_text(f'c\n{what}\n')
        savemat(sbd.parent / 'x.mat', dict(GTcls=dict(Segmentation=np.full(SIZE[::-1], 8, np.uint8))))
        shutil.copy(sbd.parent / 'x.mat', box / 'x.mat')
    elif path.suffix == '.npy':
        what, content = bad_npy(rng)
        path.write_bytes(content)
    else:
        what = bad_mask(rng, path) if path.suffix == '.png' else put(rng, path, content)
    enter = lambda: run_tool('converters/voc', voc, '--sbd', sbd) and None  # noqa: E731
    names = path.name, path.stem, str(path.parent), str(voc / 'SegmentationClass')
    return Case(
        f'{path.name}: {what}',
        enter,
        names,
        (voc / 'SegmentationClassAug', *(lists / f'{n}.txt{t}' for n in ('aug', 'trainaug') for t in ('', '.tmp'))),
    )


# Running


def tree(root: Path, but: tuple[Path, ...]) -> dict[str, tuple]:
    """Every file and folder below `root` that is not below those in `but`."""
    found = {}
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if Path(parent, name) not in but]
        for name in (*folders, *files):
            path = Path(parent, name)
            if path not in but:
                state = path.lstat()
                # A folder changes when the output appears in it.
                content = () if stat.S_ISDIR(state.st_mode) else (state.st_size, state.st_mtime_ns)
                found[str(path)] = state.st_ino, state.st_mode, *content
    return found


class Watch:
    """Forbids writing outside `allowed`, and starting programs, in this process and those it forks; notes each try."""

    PATHS = {
        'os.rename': (0, 1),
        'os.remove': (0,),
        'os.mkdir': (0,),
        'os.rmdir': (0,),
        'os.link': (1,),
        'os.symlink': (1,),
    }
    PATHS |= {'os.truncate': (0,), 'os.chmod': (0,), 'os.utime': (0,), 'shutil.rmtree': (0,)}
    PROGRAMS = 'os.system', 'os.exec', 'os.posix_spawn', 'subprocess.Popen', 'socket.connect', 'os.startfile'

    def __init__(self, log: Path) -> None:
        self.log = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.allowed: tuple[Path, ...] | None = None
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.allowed is None:
            return
        if event == 'open':
            path, mode, flags = arguments
            writes = (
                flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                if isinstance(flags, int)
                else set(mode or '') & set('wax+')
            )
            paths = [path] if writes and not isinstance(path, int) else []
        else:
            paths = [arguments[i] for i in self.PATHS.get(event, ()) if not isinstance(arguments[i], int)]
            if event == 'os.mkdir':  # which is tried of folders that are there
                paths = [path for path in paths if not os.path.isdir(path)]
            if event in ('os.remove', 'os.rmdir') and arguments[1] != -1:  # within shutil.rmtree, relative to a folder
                paths = []
        outside = [str(path) for path in paths if not self.is_allowed(Path(os.path.abspath(os.fsdecode(path))))]
        if outside or event in self.PROGRAMS:
            os.write(self.log, f'{event} {outside or arguments!r}\n'.encode(errors='backslashreplace'))
            raise PermissionError(f'{event} {outside} is not allowed here')

    def is_allowed(self, path: Path) -> bool:
        always = Path('/dev/null'), Path('/dev/shm'), Path(tempfile.gettempdir())
        return any(path.is_relative_to(good) for good in (*always, *self.allowed))

    def caught(self) -> str:
        """What was noted since the last call."""
        os.lseek(self.log, 0, os.SEEK_SET)
        noted = os.read(self.log, 10_000).decode()
        os.ftruncate(self.log, 0)
        return noted


def run_case(name: str, number: int, seed: int, box: Path, watch: Watch, shown: bool = False) -> Outcome:
    """Make the case and see what becomes of it."""
    shutil.rmtree(box, ignore_errors=True)
    box.mkdir(parents=True)
    case = KINDS[name](random.Random(f'{seed}/{name}/{number}'), box)
    before = tree(box.parents[1], case.writable)
    watch.allowed, start = case.writable, time.perf_counter()
    try:
        verdict, why = ('refused', said) if (said := case.enter()) else ('loaded', '')
    except (ValueError, OSError) as error:
        verdict, why = 'refused', f'{type(error).__name__}: {error}'
        if shown:
            traceback.print_exc()
        if not any(text in f'{error} {getattr(error, "filename", "")}' for text in case.names):
            verdict, why = 'failed', f'the file is not named in {why}'
    except BaseException as error:  # SystemExit too is a failure here
        verdict, why = 'failed', f'{type(error).__name__}: {error}'
        if shown:
            traceback.print_exc()
    watch.allowed, seconds = None, time.perf_counter() - start
    if caught := watch.caught():
        verdict, why = 'failed', f'forbidden: {caught}'
    after = tree(box.parents[1], case.writable)
    if changed := [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]:
        verdict, why = 'failed', f'written outside of the output: {sorted(changed)}'
    if CANARY.exists():
        CANARY.unlink()
        verdict, why = 'failed', 'code of the input was run'
    return Outcome(verdict, case.what, why, seconds)


def work(root: Path, seed: int, cases: list[tuple[str, int]], other_end, pipe) -> None:
    """Run the cases in turn and send what became of each; the first message is that all is prepared."""
    os.setsid()  # so that everything it starts can be ended with it
    other_end.close()  # so that it ends when nobody reads any more
    for stream in (1, 2):  # progress bars, and decoders written in C
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.dont_write_bytecode = True
    # Where mmengine copies a config to; outside of the tree that is compared.
    tempfile.tempdir = str(root / 'temporary')
    watch = Watch(root / 'log')
    for name, number in cases:
        pipe.send(None)
        try:
            pipe.send(run_case(name, number, seed, root / 'a/b/box', watch))
        except Exception:
            pipe.send(traceback.format_exc())


def prepare(root: Path) -> None:
    """What all cases share, made once, before the processes that run them."""
    global CANARY
    CANARY = root / 'canary'
    (root / 'temporary').mkdir()
    for made in (config_file, good_checkpoint_file, runner):
        made.cache_clear()
    torch.set_num_threads(1)
    init_default_scope('mmseg')
    good_weights(), config_file(), good_checkpoint_file(), Config.fromfile(config_file())
    for name in (
        'predict',
        *(f'converters/{converter}' for converter in ('tags', 'coco', 'voc', 'authors_checkpoint')),
    ):
        tool(name)
    runner()
    gc.collect()
    gc.freeze()  # mmengine collects garbage for every data set that it makes


def fuzz(cases: list[tuple[str, int]], seed: int, limit: float, told: Callable[[], None]) -> list[Outcome]:
    """Run cases, (kind, number) each, in a process that is started anew after a crash or a case of over `limit` s."""
    outcomes = []
    context = multiprocessing.get_context('fork')
    with tempfile.TemporaryDirectory(prefix='fuzz_') as folder:
        root = Path(folder).resolve()
        prepare(root)
        while len(outcomes) < len(cases):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=work, args=(root, seed, cases[len(outcomes) :], ours, theirs))
            process.start()
            theirs.close()
            try:
                while len(outcomes) < len(cases):
                    ours.recv()
                    if not ours.poll(limit):
                        outcomes.append(Outcome('failed', '', f'no end after {limit} s', limit))
                        break
                    outcome = ours.recv()
                    if isinstance(outcome, str):
                        raise RuntimeError(f'{cases[len(outcomes)]} cannot be made: {outcome}')
                    outcomes.append(outcome)
                    told()
            except EOFError:
                process.join()
                outcomes.append(Outcome('failed', '', f'the process ended with {process.exitcode}', 0.0))
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.join()
    return outcomes


def cases_of(inputs: int) -> list[tuple[str, int]]:
    """So many cases, the kinds in turn."""
    return [(list(KINDS)[i % len(KINDS)], i // len(KINDS)) for i in range(inputs)]


def repeat(name: str, number: int, seed: int) -> None:
    """One case in this process, with its error, and its files kept."""
    root = Path(tempfile.mkdtemp(prefix='fuzz_')).resolve()
    prepare(root)
    print(run_case(name, number, seed, root / 'a/b/box', Watch(root / 'log'), shown=True))
    print(f'files: {root / "a/b/box"}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--inputs', type=int, default=6000, help='number of inputs, of all kinds in turn')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--limit', type=float, default=60, help='seconds that an input may take')
    parser.add_argument('--out', type=Path, help='JSON file for the figures')
    parser.add_argument('--case', help='KIND:NUMBER of a single input to repeat')
    args = parser.parse_args()
    if args.case:
        name, number = args.case.rsplit(':', 1)
        return repeat(name, int(number), args.seed)
    cases, progress = cases_of(args.inputs), ProgressBar(args.inputs)
    outcomes = fuzz(cases, args.seed, args.limit, progress.update)
    table = PrettyTable(['kind', 'tried', 'loaded', 'refused', 'failed', 'slowest, s'], align='r', float_format='.1')
    table.align['kind'] = 'l'
    figures = {}
    for name in KINDS:
        of_kind = [outcome for (other, _), outcome in zip(cases, outcomes, strict=True) if other == name]
        counts = Counter(outcome.verdict for outcome in of_kind)
        slowest = max((outcome.seconds for outcome in of_kind), default=0.0)
        figures[name] = dict(
            tried=len(of_kind), **{v: counts[v] for v in ('loaded', 'refused', 'failed')}, slowest=slowest
        )
        table.add_row([name, *figures[name].values()])
    counts = Counter(outcome.verdict for outcome in outcomes)
    table.add_row(
        ['all', len(cases), counts['loaded'], counts['refused'], counts['failed'], max(o.seconds for o in outcomes)]
    )
    print(f'\n{table}')
    failures = {f'{n}:{i}': o._asdict() for (n, i), o in zip(cases, outcomes, strict=True) if o.verdict == 'failed'}
    for case, outcome in failures.items():
        print(f'--seed {args.seed} --case {case!r}: {outcome["what"]!r:.200}\n    {outcome["why"]!r:.600}')
    if args.out:
        args.out.write_text(json.dumps(dict(seed=args.seed, kinds=figures, failures=failures), indent=2))
    sys.exit(bool(failures))


if __name__ == '__main__':
    main()
