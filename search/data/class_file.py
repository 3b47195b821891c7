"""A folder of image and mask pairs of one's own, described by a TOML file.

    format = 1
    name = "yard"                        # the file's name if left out
    masks = "ids"                        # one number a pixel, or "colours": one colour a pixel
    ignore = [0, 255]                    # values that are ignored; of colours: [[0, 0, 0]]

    [[class]]
    name = "ground"
    colour = [128, 64, 128]              # to draw it in; where masks = "colours" also its value
    values = [1, 2]                      # the mask's values that mean this class

    [[class]]
    name = "plant"
    colour = [107, 142, 35]
    values = [3]

    [split.train]                        # and split.val; split.test if there is one
    images = "images/train"              # relative to this file
    masks = "masks/train"

Classes are labelled 0, 1, ... in the order of the file. ``values`` left out means the class's own
number where ``masks = "ids"``, and its ``colour`` where ``masks = "colours"``. Images and masks
have equal paths below their folders, suffixes aside; ``image_ending`` and ``mask_ending`` of a
split name what stands between the common part and the suffix, such as ``"_mask"``. Each value of
a mask has to be listed once, as a class's or as ignored: any other is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from latlut.errors import DataError
from latlut.files.toml_files import read_toml
from latlut.search.data.classes import IGNORE, Classes, Rgb
from latlut.search.data.dataset import SegmentationData, Split
from latlut.search.data.files import Coding, ColourCoding, IndexCoding
from latlut.search.data.pairing import data_of, paired_split

FORMAT = 1

_Byte = Annotated[int, Field(ge=0, le=255)]
_Colour = Annotated[list[_Byte], Field(min_length=3, max_length=3)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Class(_Part):
    name: Annotated[str, Field(min_length=1)]
    colour: _Colour
    values: Annotated[list[_Byte | _Colour], Field(min_length=1)] | None = None


class _Split(_Part):
    images: str
    masks: str
    image_ending: str = ""
    mask_ending: str = ""


class _Splits(_Part):
    train: _Split
    val: _Split
    test: _Split | None = None


class _ClassFile(_Part):
    format: Literal[1]
    name: str | None = None
    masks: Literal["ids", "colours"] = "ids"
    ignore: list[_Byte | _Colour] = []
    classes: Annotated[list[_Class], Field(alias="class", min_length=1)]
    split: _Splits


def open_class_file(path: Path) -> SegmentationData:
    """The data set that a TOML file describes.

    Raises:
        DataError: a file that is missing or no such TOML, a value listed twice, a split that is
            missing or incomplete.
    """
    content = read_toml(path, DataError)
    try:
        file = _ClassFile.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:4]
        )
        raise DataError(f"{path}: not a class file of format {FORMAT}: {problems}") from error
    try:
        classes = Classes(
            tuple(item.name for item in file.classes),
            tuple(_rgb(item.colour) for item in file.classes),
        )
        coding = _coding(file)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error

    def split(name: str) -> Split | None:
        part: _Split | None = getattr(file.split, name)
        if part is None:
            return None
        images, masks = path.parent / part.images, path.parent / part.masks
        for folder in (images, masks):
            if not folder.is_dir():
                raise DataError(f"{path}: split {name}: no folder {folder}")
        return paired_split(name, images, masks, coding, part.image_ending, part.mask_ending)

    return data_of(
        file.name or path.stem, classes, split, f"images in the folders that {path} names"
    )


def _coding(file: _ClassFile) -> Coding:
    listed: list[tuple[int | list[int], int]] = [(value, IGNORE) for value in file.ignore]
    for label, item in enumerate(file.classes):
        own: int | list[int] = label if file.masks == "ids" else item.colour
        listed += [(value, label) for value in (item.values or [own])]
    wanted = int if file.masks == "ids" else list
    seen: set[str] = set()
    for value, _ in listed:
        if not isinstance(value, wanted):
            raise DataError(
                f'masks = "{file.masks}" but {value} is listed; expected '
                + ("numbers such as 3" if file.masks == "ids" else "colours such as [128, 64, 128]")
            )
        if str(value) in seen:
            raise DataError(f"the mask value {value} is listed twice")
        seen.add(str(value))
    if file.masks == "ids":
        return IndexCoding({v: label for v, label in listed if isinstance(v, int)})
    return ColourCoding({_rgb(v): label for v, label in listed if isinstance(v, list)})


def _rgb(colour: list[int]) -> Rgb:
    red, green, blue = colour
    return red, green, blue
