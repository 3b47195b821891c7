"""From folders of images and masks to splits: which image belongs to which mask.

Files are matched by their path below the folder, without suffix and the endings that a layout
gives to its files. An image without a mask, or a mask without an image, is an error that names
it. File names alone are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from latlut.errors import DataError
from latlut.search.data.classes import Classes
from latlut.search.data.dataset import SegmentationData, Split
from latlut.search.data.files import Coding, FileSplit, Pair

_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
_SHOWN = 5  # files that a message names


def files_below(folder: Path, ending: str = "") -> dict[str, Path]:
    """Image files: path below ``folder`` without suffix and ``ending`` -> file, sorted."""
    found = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        # Files that a Mac adds when it copies to other disks begin with "._".
        is_image = path.suffix.lower() in _IMAGES and not path.name.startswith(".")
        if is_image and path.stem.endswith(ending):
            key = path.relative_to(folder).with_suffix("").as_posix()
            found[key[: len(key) - len(ending)]] = path
    return found


def matched_split(
    name: str, images: Path, by_key: Mapping[str, Path],
    masks: Path, mask_by_key: Mapping[str, Path], coding: Coding,
) -> Split | None:  # fmt: skip
    """The split of images and masks that have equal keys.

    None where there is no file at all, and for a test split without any mask.

    Raises:
        DataError: an image without a mask or a mask without an image.
    """
    if not by_key and not mask_by_key:
        return None
    if name == "test" and not mask_by_key:
        return None
    without = sorted(by_key.keys() - mask_by_key.keys())
    if without:
        raise DataError(
            f"{len(without)} of {len(by_key)} images in {images} have no mask in {masks}: "
            f"{first_of(by_key[key].name for key in without)}"
        )
    left = sorted(mask_by_key.keys() - by_key.keys())
    if left:
        raise DataError(
            f"{len(left)} of {len(mask_by_key)} masks in {masks} have no image in {images}: "
            f"{first_of(mask_by_key[key].name for key in left)}"
        )
    pairs = tuple(Pair(by_key[key], mask_by_key[key]) for key in sorted(by_key))
    return Split(FileSplit(name, pairs, coding))


def paired_split(
    name: str, images: Path, masks: Path, coding: Coding, image_ending: str = "",
    mask_ending: str = "",
) -> Split | None:  # fmt: skip
    """``matched_split`` of all files below two folders, by their endings before the suffix."""
    by_key, mask_by_key = files_below(images, image_ending), files_below(masks, mask_ending)
    return matched_split(name, images, by_key, masks, mask_by_key, coding)


def first_of(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")


def data_of(
    name: str, classes: Classes, split: Callable[[str], Split | None], expected: str
) -> SegmentationData:
    """The data set of the splits that ``split`` finds by name.

    Raises:
        DataError: no train or no val split; the message ends with what was ``expected``.
    """
    train, val = split("train"), split("val")
    if train is None or val is None:
        missing = "train" if train is None else "val"
        raise DataError(f"{name}: the {missing} split is empty: no image; expected {expected}")
    return SegmentationData(name, classes, train, val, split("test"))
