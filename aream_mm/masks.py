"""Masks of class ids as files: palette PNGs, in which 0 is background where there is one and 255 is ignored."""

import io
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from PIL.PngImagePlugin import PngInfo

IGNORE_INDEX = 255
SIZES = 'expected {} × {}, got {} × {}'  # width and height of an image, and of a mask that does not fit
# PASCAL VOC's 256 RGB colours: bit 3 j + c of an id is bit 7 − j of its channel c.
VOC_COLOURS = [[sum((i >> 3 * j + c & 1) << 7 - j for j in range(3)) for c in range(3)] for i in range(256)]


def encode_mask(ids: np.ndarray, palette: ArrayLike = VOC_COLOURS, pnginfo: PngInfo | None = None) -> bytes:
    """The PNG of uint8 ids (H, W) in colours (K, 3) of RGB in 0..255, with text chunks."""
    mask, content = Image.fromarray(ids), io.BytesIO()
    mask.putpalette(np.asarray(palette, np.uint8).tobytes())
    mask.save(content, format='PNG', pnginfo=pnginfo)
    return content.getvalue()


def renumbered(masks: Sequence[dict], palette: ArrayLike) -> list[dict[int, int | str]]:
    """The id of each index of the masks, as `read_mask` finds them, whose colours an editor has given other indices.

    The colours (K, 3) of the ids then say which is meant; one that is no id's is named. {} where the indices are the
    ids: in grey masks, and where no id's colour is at another index. That at 255 is not looked at, since short palettes
    are filled up with black.
    """
    pairs = [(tuple(colour), i) for i, colour in [*enumerate(palette), (IGNORE_INDEX, VOC_COLOURS[IGNORE_INDEX])]]
    number, all_ids = Counter(colour for colour, _ in pairs), []
    ids = {colour: i for colour, i in pairs if number[colour] == 1}
    for mask in masks:
        found = dict(zip(mask['ids'], map(tuple, mask['colours']), strict=True))
        telling = [(i, colour) for i, colour in found.items() if i != IGNORE_INDEX]
        as_written = all(ids.get(colour, i) == i for i, colour in telling)
        as_written |= all(list(colour) == VOC_COLOURS[i] for i, colour in telling)
        all_ids.append({} if as_written else {i: ids.get(c, f'the colour {c}') for i, c in found.items()})
    return all_ids
