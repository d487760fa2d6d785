"""Image files: which are read, how large they are as shown, what their values mean, and whether they are whole."""

import io
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import mmcv
import numpy as np
from mmengine.logging import print_log
from PIL import ExifTags, Image, UnidentifiedImageError

ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
FORMATS = ('JPEG', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'PPM', 'JPEG2000')  # mmcv's cv2 reads them
MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr', 'I', 'I;16', 'I;16B', 'I;16L', 'F')
ID_MODES = ('1', 'L', 'P')  # those that mmseg's LoadAnnotations reads as one id of 8 bits for each pixel
SHOWN = 5  # offenders listed in an error
ANY_DEPTH = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH  # 6: grey or BGR with the values of the file, as it is shown
DARK = 16  # of 255: an image without a value above it shows next to nothing
TIFF_BANDS = 277  # a tag
TIFF_ADVICE = (
    'expected a TIFF of grey or colour of 8 or 16 bits, or grey of numbers; save the bands that are meant as one'
)
RANGE_ADVICE = (
    'set value_range in configs/_base_/datasets/own.py, or elsewhere load images in every pipeline by '
    "dict(type='LoadImageFromFile', color_type=6), dict(type='aream_mm.ToEightBits', value_range=(…, …))"
)
THREADS = 8  # of little use on a disk of one's own; on a network disk the answers take long, and overlap


class Header(NamedTuple):
    """What an image file says about itself."""

    size: tuple[int, int]  # width and height in pixels as it is shown, that is after EXIF rotation
    mode: str  # Pillow's
    deep: bool  # whether its values have more than 8 bits


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


def find_images(folder: Path) -> tuple[list[str], list[str]]:
    """`files_below` a folder with the endings of images, in any case, broken links among them; and the others."""
    images, others = [], []
    for file in files_below(folder):
        (images if file.lower().endswith(ENDINGS) else others).append(file)
    return images, others


def require_distinct_names(folder: Path, images: list[str]) -> None:
    """Raise a ValueError where images differ in ending or case alone: one mask would be both's, here or elsewhere."""
    names = [Path(image).with_suffix('').as_posix().casefold() for image in images]
    numbers = Counter(names)
    twins = [image for image, name in zip(images, names, strict=True) if numbers[name] > 1]
    if twins:
        raise ValueError(
            f'{folder}: expected images of different names, ending and case apart, got {len(twins)} that share '
            f'theirs: {first_few(twins)}; rename or remove all but one'
        )


def endings(files: Iterable[str]) -> str:
    """The files counted by ending: '.txt (2), .heic (1)'."""
    counted = Counter(Path(file).suffix.lower() or 'without an ending' for file in files)
    return ', '.join(f'{ending} ({number})' for ending, number in counted.most_common())


def first_few(names: list[str]) -> str:
    return ', '.join(names[:SHOWN]) + (', …' if len(names) > SHOWN else '')


def warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


warn_once = cache(warn)


def open_image(path: str | Path) -> Image.Image:
    """Pillow's `Image.open` for a file in one of `FORMATS`.

    A pipe would be waited for, and for some formats that are not among these Pillow starts a program.

    Raises:
        FileNotFoundError: there is no regular file.
        Exception: the header is broken; Pillow has no kind of error for it.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path}: expected an image, got no file')
    return Image.open(path, formats=FORMATS)


def read_headers(paths: Iterable[str | Path | None]) -> list[Header | None]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(read_header, paths))


def read_header(path: str | Path | None) -> Header | None:
    """None where there is no image that can be read: `why_unreadable` says why."""
    try:
        return header_of(path)
    except Exception:  # decoders raise whatever they like
        return None


def why_unreadable(path: str | Path) -> str | None:
    """What is wrong with the header of an image; None where it can be read."""
    try:
        header_of(path)
    except Exception as error:
        return str(error) or type(error).__name__


def header_of(path: str | Path | None) -> Header:
    """Raises what the decoder raises, and a ValueError for what cv2 would misread: other colours, bands or pages."""
    try:
        with open_image(path or '') as image:
            if image.mode not in MODES:
                raise ValueError(f'expected grey or colour, got the mode {image.mode}')
            width, height = image.size
            # As cv2 reads it: of EXIF data alone, where getexif goes by XMP too. Pillow has turned a TIFF itself.
            exif, orientation = Image.Exif(), 1
            with suppress(Exception):  # of broken data, which cv2 does not turn by
                exif.load(image.info.get('exif'))
                orientation = exif.get(ExifTags.Base.Orientation, 1)
            deep = image.mode[0] in 'IF' or ';16' in str(image.tile[:1])  # 16 bits in colour are of the mode RGB
            if image.format == 'WEBP' and 2 <= orientation <= 8 and not webps_are_turned():
                raise ValueError('a WebP that has to be turned, which this version of OpenCV does not do')
            if image.format == 'TIFF' and (bands := image.tag_v2.get(TIFF_BANDS, 1)) > 4:
                raise ValueError(f'{bands} bands; {TIFF_ADVICE}')
            if image.format == 'TIFF' and image.is_animated:
                image.seek(1)
                if image.size == (width, height):  # a smaller one is a thumbnail, or the same at another resolution
                    raise ValueError(f'a stack of {image.n_frames} pages; save the one that is meant')
            return Header((height, width) if 5 <= orientation <= 8 else (width, height), image.mode, deep)
    except UnidentifiedImageError as error:
        tiff = str(path).lower().endswith(('.tif', '.tiff'))
        raise ValueError(f'{error}{"; " + TIFF_ADVICE if tiff else ""}') from error


def read_image(path: str, value_range: Sequence[float] | None = None) -> np.ndarray:
    """The image as it is shown, RGB (H, W, 3) uint8; `value_range` as for `to_eight_bits`."""
    return np.ascontiguousarray(to_eight_bits(mmcv.imread(path, flag=ANY_DEPTH), value_range, path)[..., ::-1])


def to_eight_bits(image: np.ndarray, value_range: Sequence[float] | None, name: str) -> np.ndarray:
    """Values (H, W) or (H, W, 3) → uint8 (H, W, 3): of more than 8 bits low..high become 0..255; logs a dark result."""
    if image.dtype != np.uint8:
        if value_range is None:
            raise ValueError(f'{name}: expected a value_range for values of {image.dtype}, got None; {RANGE_ADVICE}')
        low, high = value_range
        scaled = (image.astype(np.float64) - low) * (255 / (high - low))
        image = np.nan_to_num(scaled).clip(0, 255).round().astype(np.uint8)
        if image.max() <= DARK:
            warn_once(f'{name}: all its values lie in the lowest 16th of value_range={tuple(value_range)}: it is dark')
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def measured_range(paths: Sequence[str]) -> str:
    """In words, the range of 99.8 % of the values of images, and which would be dark with it.

    Up to 100 images, evenly spread, and 10,000 values of each are looked at.
    """
    spread = [paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), 100), dtype=int)]
    loaded = {path: image for path in spread if (image := mmcv.imread(path, flag=ANY_DEPTH)) is not None}
    values = {path: image[np.isfinite(image)][:: max(1, image.size // 10_000)] for path, image in loaded.items()}
    values = {path: some for path, some in values.items() if some.size}
    if not values:
        return 'none of them can be read'
    low, high = np.percentile(np.concatenate(list(values.values())), (0.1, 99.9))
    if all(some.dtype.kind in 'iu' for some in values.values()):
        low, high = np.floor(low), np.ceil(high)
    dark = [path for path, some in values.items() if np.percentile(some, 99.9) <= low + (high - low) * DARK / 255]
    told = f'value_range = ({low:g}, {high:g}), which 99.8 % of their values lie in, may be right'
    return told + (f'; dark with it would be {first_few(dark)}' if dark else '')


@cache
def webps_are_turned() -> bool:
    """Whether cv2 obeys the EXIF data of a WebP, which 4.11 does not."""
    exif, content = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = 6
    Image.new('RGB', (2, 1)).save(content, 'WEBP', exif=exif)
    return mmcv.imfrombytes(content.getvalue()).shape[:2] == (2, 1)


def damage(path: str) -> str | None:
    """What is wrong with the data behind the header of an image; None where all of it can be read.

    Takes as long as reading it twice: versions of cv2 decode a part of a broken JPEG and say nothing, and Pillow
    accepts some files that cv2 does not.
    """
    try:
        with open_image(path) as image:
            image.load()
        return 'cannot be decoded' if mmcv.imread(path, flag=ANY_DEPTH) is None else None
    except Exception as error:  # decoders raise whatever they like
        return str(error) or type(error).__name__
