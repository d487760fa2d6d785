"""Masks of class ids as files: palette PNGs, in which 0 is background where there is one and 255 is ignored."""

import io

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
