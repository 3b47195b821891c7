"""Pictures of a data set: images beside their labels in the colours of the classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from latlut.search.data.classes import IGNORE, Classes
from latlut.search.data.dataset import Split

_COLUMNS = 2  # pairs of pictures in a row of a sheet
_GAP = 4  # between pairs, in pixels


def painted_labels(label: Tensor | NDArray[np.uint8], classes: Classes) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 picture of (H, W) labels; ignored pixels are black."""
    palette = np.zeros((IGNORE + 1, 3), np.uint8)
    palette[: len(classes)] = classes.colours
    picture: NDArray[np.uint8] = palette[np.asarray(label)]
    return picture


def contact_sheet(
    split: Split, classes: Classes, indices: Sequence[int], tile_width: int = 384
) -> Image.Image:
    """Images and, to the right of each, its labels.

    Args:
        split: where the examples come from. classes: what the labels mean.
        indices: which examples, from left to right and top to bottom.
        tile_width: width in pixels of one image; its height keeps the proportions.

    Raises:
        DataError: files that cannot be used.
    """
    tiles = []
    for index in indices:
        image, label = split[index]
        picture = Image.fromarray(np.ascontiguousarray(image.numpy().transpose(1, 2, 0)))
        painted = Image.fromarray(painted_labels(label, classes))
        size = (tile_width, max(1, round(tile_width * picture.height / picture.width)))
        tiles.append(
            (
                picture.resize(size, Image.Resampling.BILINEAR),
                painted.resize(size, Image.Resampling.NEAREST),
            )
        )
    height = max(picture.height for picture, _ in tiles)
    rows = -(-len(tiles) // _COLUMNS)
    sheet = Image.new(
        "RGB",
        (_COLUMNS * (2 * tile_width + _GAP) - _GAP, rows * (height + _GAP) - _GAP),
        (255, 255, 255),
    )
    for number, (picture, painted) in enumerate(tiles):
        left = number % _COLUMNS * (2 * tile_width + _GAP)
        top = number // _COLUMNS * (height + _GAP)
        sheet.paste(picture, (left, top))
        sheet.paste(painted, (left + tile_width, top))
    return sheet
