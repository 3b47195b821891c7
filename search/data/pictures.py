"""Pictures of any kind as 8-bit RGB: turned as EXIF says, in the range that their numbers have.

    8-bit RGB, grey, black and white, palette, CMYK, YCbCr   as they look
    16-bit grey        0 to 65535 becomes 0 to 255
    floating-point     0 to 1 becomes 0 to 255; anything outside is refused
    alpha              taken off where all pixels are opaque, else refused: what is behind a
                       see-through pixel is not in the file
    several pictures   an animation, or the pages of a TIFF: refused, except the previews that
                       phones keep behind the photograph

Symbols: H, W height and width in pixels.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from latlut.errors import DataError

_AS_THEY_LOOK = ("RGB", "L", "1", "P", "CMYK", "YCbCr", "RGBX")
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_16_BIT = 65535
#: What Pillow raises where a file is damaged, whichever format it is.
DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
    EOFError, RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
#: Formats of which several pictures in a file are a sequence or pages.
_SEQUENCES = ("GIF", "WEBP", "PNG", "TIFF", "AVIF")


def upright(picture: Image.Image, path: Path) -> Image.Image:
    """The picture turned as its EXIF orientation says.

    Raises:
        DataError: EXIF that cannot be read.
    """
    try:
        turned = ImageOps.exif_transpose(picture)
    except DAMAGED as error:
        raise DataError(f"{path}: its EXIF data, which says how it lies, is damaged") from error
    turned.format = picture.format  # a turned copy forgets it
    return turned


def single(picture: Image.Image, path: Path) -> Image.Image:
    """The picture, if the file holds no more than it.

    Raises:
        DataError: an animation, or several pages.
    """
    try:
        count = getattr(picture, "n_frames", 1)
    except DAMAGED as error:
        raise DataError(f"{path}: the image is damaged: {error}") from error
    if count > 1 and picture.format in _SEQUENCES:
        raise DataError(f"{path}: holds {count} pictures; expected one: write each to a file")
    return picture


def rgb_of(picture: Image.Image, path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an opened picture, by the rules above; not turned.

    Raises:
        DataError: a kind of picture that does not say how it looks.
    """
    mode = picture.mode
    if mode in _WITH_ALPHA or "transparency" in picture.info:
        with_alpha = picture.convert("RGBA")
        if with_alpha.getchannel("A").getextrema() != (255, 255):
            raise DataError(
                f"{path}: has see-through pixels, and does not say what is behind them: flatten "
                "it onto a background"
            )
        return np.asarray(with_alpha.convert("RGB"))
    if mode in _AS_THEY_LOOK:
        return np.asarray(picture.convert("RGB"))
    values = np.asarray(picture)
    # In TIFF mode I is 32 bits a pixel, whose range is not known; elsewhere it is 16-bit grey.
    if mode.startswith("I") and not (mode == "I" and picture.format == "TIFF"):
        if values.min() < 0 or values.max() > _16_BIT:
            raise DataError(
                f"{path}: whole numbers from {values.min()} to {values.max()}; expected 8 or 16 "
                "bits a pixel"
            )
        grey = np.rint(values * (255 / _16_BIT)).astype(np.uint8)
    elif mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise DataError(
                f"{path}: floating-point numbers from {values.min():.4g} to {values.max():.4g}; "
                "expected 0 to 1"
            )
        grey = np.rint(values * 255).astype(np.uint8)
    else:
        raise DataError(
            f"{path}: a picture of mode {mode}, which latlut does not read: save as RGB"
        )
    return np.repeat(grey[..., None], 3, axis=2)
