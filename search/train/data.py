"""The data of a run: opened as its settings say, and looked at before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

from latlut.errors import DataError
from latlut.search.data.checking import SplitReport, check_labels, inspect_data
from latlut.search.data.dataset import SegmentationData, Split
from latlut.search.data.files import FileSplit
from latlut.search.data.opening import STREET_SCENES, open_data
from latlut.search.runs.settings import DataSettings


class CheckedData(NamedTuple):
    """Data that can be trained on; ``left_out`` names what cannot, one line per file."""

    data: SegmentationData
    left_out: tuple[str, ...]


def open_train_data(settings: DataSettings) -> SegmentationData:
    """The data set that the settings name; no image is read yet.

    Raises:
        DataError: an unknown name or layout, a split that is empty or incomplete.
    """
    if settings.name != STREET_SCENES:
        return open_data(settings.name)
    counts = (settings.train_images, settings.validation_images, 0)
    return open_data(settings.name, size=settings.image_size, counts=counts)


def checked_data(
    settings: DataSettings, corrupt: Literal["fatal", "skip"] = "fatal"
) -> CheckedData:
    """The data set, after every file was read once.

    Files that cannot be used (damaged, of another size than their mask, with a label that is no
    class) end it, or are left out where ``corrupt`` is ``skip``.

    Raises:
        DataError: see ``open_train_data``; files that cannot be used, with their names; a split
            of which nothing is left.
    """
    data = open_train_data(settings)
    if settings.name == STREET_SCENES:  # right by construction
        return CheckedData(data, ())
    if corrupt == "fatal":
        check_labels(data)
        return CheckedData(data, ())
    return usable_part(data, inspect_data(data))


def usable_part(data: SegmentationData, reports: Mapping[str, SplitReport]) -> CheckedData:
    """The data without the files that cannot be used.

    Args:
        data: all of it. reports: what ``inspect_data`` found in it.

    Raises:
        DataError: a split of which nothing is left, or without any labelled pixel.
    """
    left_out: list[str] = []
    splits: dict[str, Split] = {}
    for name, split in data.splits.items():
        report = reports[name]
        source, bad = split.source, set(report.unusable)
        if len(report.problems) > len(bad):
            raise DataError(f"{data.name}: {report.problems[-1]}")
        left_out += report.problems
        if bad and isinstance(source, FileSplit):
            pairs = tuple(pair for index, pair in enumerate(source.pairs) if index not in bad)
            if not pairs:
                raise DataError(
                    f"{data.name}: no file of the {name} split can be used\n"
                    + "\n".join(report.problems[:10])
                )
            split = Split(replace(source, pairs=pairs))
        splits[name] = split
    left = SegmentationData(
        data.name, data.classes, splits["train"], splits["val"], splits.get("test")
    )
    return CheckedData(left, tuple(left_out))
