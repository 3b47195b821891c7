"""``open_data``: a data set from a name, a folder or a TOML file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from latlut.errors import DataError, did_you_mean
from latlut.search.data.camvid import CAMVID_LAYOUT, SEGNET_LAYOUT, camvid, camvid_original
from latlut.search.data.cityscapes import (
    BDD100K_LAYOUT,
    BDD100K_SEG_LAYOUT,
    CITYSCAPES_LAYOUT,
    bdd100k,
    bdd100k_seg,
    cityscapes,
)
from latlut.search.data.class_file import open_class_file
from latlut.search.data.dataset import SegmentationData, Split
from latlut.search.data.street.scenes import CLASSES, StreetScenes

STREET_SCENES = "street-scenes"
DEFAULT_SIZE = (128, 256)
DEFAULT_COUNTS = (512, 96, 96)


class Layout(NamedTuple):
    """A folder layout: the data set's name, what it looks like, its marks, how it is opened."""

    kind: str
    expected: str
    marks: tuple[str, ...]
    open: Callable[[Path], SegmentationData]

    def fits(self, root: Path) -> bool:
        """Whether the folder has any of the layout's marks."""
        return any((root / mark).is_dir() for mark in self.marks)


LAYOUTS = (
    Layout("cityscapes", CITYSCAPES_LAYOUT, ("leftImg8bit", "gtFine"), cityscapes),
    Layout("camvid", SEGNET_LAYOUT, ("trainannot", "valannot"), camvid),
    Layout("camvid", CAMVID_LAYOUT, ("701_StillsRaw_full", "LabeledApproved_full"),
           camvid_original),
    Layout("bdd100k", BDD100K_LAYOUT, ("images/10k", "labels/sem_seg"), bdd100k),
    Layout("bdd100k", BDD100K_SEG_LAYOUT, ("seg/images", "seg/labels"), bdd100k_seg),
)  # fmt: skip

#: Folders that archives unpack into, below the one that a user names.
_INSIDE = (".", "bdd100k", "CamVid", "camvid")


def open_data(
    name_or_path: str | Path = STREET_SCENES,
    *,
    size: tuple[int, int] | None = None,
    counts: tuple[int, int, int] | None = None,
    seed: int | None = None,
) -> SegmentationData:
    """The data set of a name or a path.

    Args:
        name_or_path: ``street-scenes`` (generated); ``KIND:FOLDER`` with a kind of cityscapes,
            camvid, bdd100k; a folder whose layout is one of these; a class file (*.toml, see
            class_file). No file but a TOML is read yet, only names.
        size: (height, width) in pixels of generated scenes; 128x256 if left out.
        counts: numbers of generated scenes for train, val and test; (512, 96, 96) if left out.
        seed: of generated scenes; 0 if left out.

    Raises:
        DataError: an unknown name or layout (lists what was expected), a split that is empty or
            incomplete, options of generated scenes with another data set.
    """
    given = str(name_or_path)
    if given == STREET_SCENES:
        return _street_scenes(size or DEFAULT_SIZE, counts or DEFAULT_COUNTS, seed or 0)
    if size or counts or seed is not None:
        raise DataError(f"{given}: size, counts and seed are options of {STREET_SCENES} alone")
    kind, _, folder = given.partition(":")
    kinds = sorted({layout.kind for layout in LAYOUTS})
    if folder and kind in kinds:
        return _open_folder(Path(folder).expanduser(), kind)
    path = Path(name_or_path).expanduser()
    if path.suffix == ".toml":
        return open_class_file(path)
    if path.is_dir():
        return _open_folder(path, None)
    known = [STREET_SCENES, *(f"{name}:FOLDER" for name in kinds)]
    raise DataError(
        f"data {given!r}: no such data set, folder or file; {did_you_mean(given, known)}, "
        "a folder, or a class file *.toml"
    )


def _open_folder(root: Path, kind: str | None) -> SegmentationData:
    layouts = [layout for layout in LAYOUTS if kind in (None, layout.kind)]
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    for inside in _INSIDE:
        for layout in layouts:
            if layout.fits(root / inside):
                return layout.open(root / inside)
    lines = "\n".join(f"  {layout.kind}: {layout.expected}" for layout in layouts)
    there = sorted(path.name for path in root.iterdir())[:8]
    raise DataError(
        f"{root}: unknown layout; it holds {', '.join(there) or 'nothing'}; expected one of\n"
        f"{lines}\nor describe the folder in a class file *.toml and name that"
    )


def _street_scenes(
    size: tuple[int, int], counts: tuple[int, int, int], seed: int
) -> SegmentationData:
    height, width = size
    train, val, test = (
        Split(StreetScenes(name, seed, count, height, width)) if count else None
        for name, count in zip(("train", "val", "test"), counts, strict=True)
    )
    if train is None or val is None:
        raise DataError(f"{STREET_SCENES}: counts {counts}: train and val need at least 1 image")
    return SegmentationData(STREET_SCENES, CLASSES, train, val, test)
