"""Picture files: which are read, how large they are as shown, and whether their data is whole."""

import io
import logging
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import mmcv
from mmengine.logging import print_log
from PIL import ExifTags, Image

ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
FORMATS = ('JPEG', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'PPM', 'JPEG2000')  # mmcv's cv2 reads them
MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr', 'I', 'I;16', 'I;16B', 'I;16L')
ID_MODES = ('1', 'L', 'P')  # those that mmseg's LoadAnnotations reads as one id of 8 bits for each pixel
SHOWN = 5  # offenders listed in an error
THREADS = 8  # of little use on a disk of one's own; on a network disk the answers take long, and overlap


class Header(NamedTuple):
    """What a picture file says about itself."""

    size: tuple[int, int]  # width and height in pixels as it is shown, that is after EXIF rotation
    mode: str  # Pillow's


def files_below(folder: Path) -> list[str]:
    """All that is below a folder and is no folder, as sorted relative paths; links to folders are followed.

    Names that begin with a dot are left out. Not all can be opened: links may lead nowhere, pipes would be waited for.

    Raises:
        OSError: a folder cannot be read.
        ValueError: a link leads to a folder that is found elsewhere below this one, or to one above it, without an end.
    """

    def fail(error: OSError) -> None:
        raise error

    found, seen = [], {}
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        state = os.stat(parent)
        first = seen.setdefault((state.st_dev, state.st_ino), parent)
        if first != parent:
            raise ValueError(f'{folder}: expected each folder once, got {first} and {parent}, which are the same')
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        found += [Path(parent, name).relative_to(folder).as_posix() for name in files if not name.startswith('.')]
    return sorted(found)


def find_pictures(folder: Path) -> tuple[list[str], list[str]]:
    """`files_below` a folder with the endings of pictures, in any case, broken links among them; and the others."""
    pictures, others = [], []
    for file in files_below(folder):
        (pictures if file.lower().endswith(ENDINGS) else others).append(file)
    return pictures, others


def require_distinct_names(folder: Path, pictures: list[str]) -> None:
    """Raise a ValueError where two pictures differ in nothing but their endings, so that one mask would be both's."""
    stems = Counter(Path(picture).with_suffix('') for picture in pictures)
    twins = [picture for picture in pictures if stems[Path(picture).with_suffix('')] > 1]
    if twins:
        raise ValueError(
            f'{folder}: expected pictures of different names, ending apart, got {len(twins)} that share theirs: '
            f'{first_few(twins)}; rename or remove all but one'
        )


def endings(files: Iterable[str]) -> str:
    """The files counted by ending: '.txt (2), .heic (1)'."""
    counted = Counter(Path(file).suffix.lower() or 'without an ending' for file in files)
    return ', '.join(f'{ending} ({number})' for ending, number in counted.most_common())


def first_few(names: list[str]) -> str:
    return ', '.join(names[:SHOWN]) + (', …' if len(names) > SHOWN else '')


def warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


def open_picture(path: str | Path) -> Image.Image:
    """Pillow's `Image.open` for a file in one of `FORMATS`.

    A pipe would be waited for, and for some formats that are not among these Pillow starts a program.

    Raises:
        FileNotFoundError: there is no regular file.
        Exception: the header is broken; Pillow has no kind of error for it.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path}: expected a picture, got no file')
    return Image.open(path, formats=FORMATS)


def read_headers(paths: Iterable[str | Path | None]) -> list[Header | None]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(read_header, paths))


def read_header(path: str | Path | None) -> Header | None:
    """None where there is no picture that can be read: damaged, too large, or in colours that cv2 takes for others."""
    try:
        with open_picture(path or '') as picture:
            if picture.mode not in MODES:
                return None
            width, height = picture.size
            # Pillow has turned a TIFF itself, and would decode the whole of a PNG to look for EXIF data behind its end.
            has_exif = 'exif' in picture.info if picture.format == 'PNG' else picture.format != 'TIFF'
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1) if has_exif else 1
            if picture.format == 'WEBP' and orientation != 1 and not webps_are_turned():
                return None
            return Header((height, width) if orientation >= 5 else (width, height), picture.mode)
    except Exception:  # no such file, no picture, or one of over 178 Mpx; decoders raise whatever they like
        return None


@cache
def webps_are_turned() -> bool:
    """Whether cv2 obeys the EXIF data of a WebP, which 4.11 does not."""
    exif, content = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = 6
    Image.new('RGB', (2, 1)).save(content, 'WEBP', exif=exif)
    return mmcv.imfrombytes(content.getvalue()).shape[:2] == (2, 1)


def damage(path: str) -> str | None:
    """What is wrong with the data behind the header of a picture; None where all of it can be read.

    Takes as long as reading it twice: versions of cv2 decode a part of a broken JPEG and say nothing, and Pillow
    accepts some files that cv2 does not.
    """
    try:
        with open_picture(path) as picture:
            picture.load()
        return 'cannot be decoded' if mmcv.imread(path) is None else None
    except Exception as error:  # decoders raise whatever they like
        return str(error) or type(error).__name__
