"""Images and masks in files: reading one of each, and what the values of a mask mean.

A mask's values are mapped to labels by an ``IndexCoding`` (one byte a pixel) or a
``ColourCoding`` (one colour a pixel). A value that the coding does not know is an error that
names the file, the value and where it is: such a label would end a training run much later, and
on a GPU without saying why.

Symbols: H, W height and width in pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from latlut.errors import DataError
from latlut.files.reading import check_file
from latlut.search.data.classes import Rgb
from latlut.search.data.pictures import DAMAGED, rgb_of, single, upright

#: Of a picture that is decoded: 8000 a side, 190 MB as RGB.
MAX_PIXELS = 1 << 25
MAX_SIDE = 1 << 16
#: As many pixels of 8 bytes, uncompressed.
MAX_FILE_BYTES = 512 << 20
#: Formats that change the values of a mask.
_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
_UNKNOWN = 254  # in tables from a mask's values to labels; no class has this number


@dataclass(frozen=True)
class IndexCoding:
    """Masks of one number a pixel."""

    label_of: Mapping[int, int] = field(hash=False)
    """Mask value -> label; 255 to ignore. Values that are not listed are errors."""

    @cached_property
    def _table(self) -> NDArray[np.uint8]:
        table = np.full(256, _UNKNOWN, np.uint8)
        for value, label in self.label_of.items():
            table[value] = label
        return table

    def labels(self, mask: Image.Image, path: Path) -> NDArray[np.uint8]:
        """(H, W) uint8 labels of an opened mask.

        Raises:
            DataError: a mask of colours, or a value that is not listed.
        """
        values = np.asarray(mask)
        if values.ndim != 2:
            raise DataError(
                f"{path}: a mask of mode {mask.mode}; expected one number a pixel "
                "(mode L or P): is it the coloured rendering of the labels?"
            )
        if values.dtype != np.uint8:
            is_whole = values.dtype.kind in "biu"
            if not is_whole or values.min() < 0 or values.max() > 255:
                raise DataError(
                    f"{path}: values from {values.min()} to {values.max()}; expected whole "
                    "numbers from 0 to 255"
                )
            values = values.astype(np.uint8)
        labels: NDArray[np.uint8] = self._table[values]
        wrong = labels == _UNKNOWN
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            known = sorted(self.label_of)
            raise DataError(
                f"{path}: label {values[row, column]} at row {row}, column {column}, in "
                f"{wrong.sum()} pixels with labels out of range; known: {_shortened(known)}"
            )
        return labels


@dataclass(frozen=True)
class ColourCoding:
    """Masks of one colour a pixel."""

    label_of: Mapping[Rgb, int] = field(hash=False)
    """RGB -> label; 255 to ignore. Colours that are not listed are errors."""

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        codes = np.array([(r << 16) | (g << 8) | b for r, g, b in self.label_of], np.int32)
        order = np.argsort(codes)
        return codes[order], np.array(list(self.label_of.values()), np.uint8)[order]

    def labels(self, mask: Image.Image, path: Path) -> NDArray[np.uint8]:
        """(H, W) uint8 labels of an opened mask.

        Raises:
            DataError: a colour that is not listed.
        """
        pixels = rgb_of(mask, path).astype(np.int32)
        code = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
        codes, labels = self._sorted
        place = np.minimum(np.searchsorted(codes, code), len(codes) - 1)
        wrong = codes[place] != code
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise DataError(
                f"{path}: colour {tuple(int(v) for v in pixels[row, column])} at row {row}, "
                f"column {column}, in {wrong.sum()} pixels whose colour is no class; "
                f"{len(codes)} colours are known"
            )
        return labels[place]


Coding = IndexCoding | ColourCoding


@dataclass(frozen=True)
class Pair:
    """An image's file and its mask's."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class FileSplit:
    """A split whose images and masks are files, read when they are asked for.

    Raises:
        DataError: no pair at all.
    """

    split: str
    """Name of the split. pairs: the files, in order. coding: what the masks' values mean."""
    pairs: tuple[Pair, ...]
    coding: Coding

    def __post_init__(self) -> None:
        if not self.pairs:
            raise DataError(f"split {self.split!r} is empty")

    def __len__(self) -> int:
        return len(self.pairs)

    def arrays(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image (H, W, 3) and labels (H, W), both uint8.

        Raises:
            DataError: a file that cannot be read, a mask of another size than its image, a value
                of the mask that is no label.
        """
        pair = self.pairs[index]
        image, labels = read_image(pair.image), read_labels(pair.mask, self.coding)
        if image.shape[:2] != labels.shape:
            raise DataError(
                f"{pair.mask}: {labels.shape[0]}x{labels.shape[1]} pixels, but its image "
                f"{pair.image} has {image.shape[0]}x{image.shape[1]} (height x width)"
            )
        return image, labels

    def name(self, index: int) -> str:
        """What an error calls the image."""
        return str(self.pairs[index].image)


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, by the rules of ``pictures``.

    Raises:
        DataError: a file that is missing, damaged or no image, or does not say how it looks.
    """
    with open_picture(path) as image:
        try:
            image.load()
        except DAMAGED as error:
            raise DataError(f"{path}: the image is damaged: {error}") from error
        return rgb_of(upright(single(image, path), path), path)


def read_labels(path: Path, coding: Coding) -> NDArray[np.uint8]:
    """(H, W) uint8 labels; turned as EXIF says, like images.

    Raises:
        DataError: a file that is missing, damaged or no image, or compressed with losses; a value
            that is no label.
    """
    with open_picture(path) as mask:
        try:
            mask.load()
        except DAMAGED as error:
            raise DataError(f"{path}: the mask is damaged: {error}") from error
        if mask.format in _LOSSY:
            raise DataError(
                f"{path}: a mask in {mask.format}, whose compression changes its values: save "
                "masks as PNG"
            )
        return coding.labels(upright(single(mask, path), path), path)


def open_picture(path: Path) -> Image.Image:
    """An image file, opened and not yet decoded.

    Raises:
        DataError: a file that is missing, damaged or no image, or too large.
    """
    check_file(path, MAX_FILE_BYTES, DataError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's own limit, which is larger
            picture = Image.open(path)
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image that can be read, or damaged") from error
    except DAMAGED as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    width, height = picture.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        picture.close()
        raise DataError(
            f"{path}: {height}x{width} pixels, expected at most {MAX_PIXELS} and {MAX_SIDE} a "
            "side: scale it or cut it into parts"
        )
    return picture


def _shortened(values: list[int]) -> str:
    """``0-10, 255`` for a sorted list."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
