"""Looking at all of a data set before a training starts, and remembering what was fine.

Every image and mask is read once: damaged files, masks of another size than their image and
labels that are no class are found, each with its file's name. What was fine is remembered by the
path, time and size of both files, so that the next look takes no time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from latlut.errors import DataError
from latlut.files.writing import WriteError, written_whole
from latlut.search.data.classes import IGNORE
from latlut.search.data.dataset import SegmentationData, Split
from latlut.search.data.files import ColourCoding, FileSplit, Pair

#: Generated images are right by construction; so many per split show the shares of the classes.
GENERATED_LOOKS = 64

_SHOWN = 10  # problems that an error lists
_VERSION = 1  # of the remembered file


@dataclass(frozen=True)
class SplitReport:
    """What was found in one split."""

    count: int
    """Images of the split. looked_at: those that were read, now or before."""
    looked_at: int
    sizes: Mapping[tuple[int, int], int]
    """(height, width) -> number of images."""
    class_pixels: tuple[int, ...]
    """Pixels of each class. ignored_pixels: those labelled 255."""
    ignored_pixels: int
    problems: tuple[str, ...]
    """One line each, with the file's name."""
    unusable: tuple[int, ...] = ()
    """Numbers of the images that cannot be used; the first problems are theirs."""


class _Found(NamedTuple):
    """Of one example: its size, the pixels of each class and then the ignored ones."""

    height: int
    width: int
    pixels: tuple[int, ...]


def inspect_data(
    data: SegmentationData,
    workers: int = 2,
    *,
    cache_folder: Path | None = None,
    listener: Callable[[int, int], None] | None = None,
) -> dict[str, SplitReport]:
    """A report of each split; files that cannot be used are listed, not raised.

    Args:
        data: what to look at.
        workers: threads that read.
        cache_folder: where good files are remembered; the user's cache if not given.
        listener: called with the number of images done and of all.
    """
    total = sum(_looks(split) for split in data.splits.values())
    done = 0
    reports = {}
    for name, split in data.splits.items():
        memory = _Memory(cache_folder, split, data.classes.count)

        def look(
            index: int, split: Split = split, memory: _Memory = memory
        ) -> tuple[int, _Found | str]:
            return index, _look(split, index, data.classes.count, memory)

        found: dict[int, _Found] = {}
        problems: dict[int, str] = {}
        with ThreadPoolExecutor(max(1, workers)) as pool:
            for index, result in pool.map(look, range(_looks(split))):
                if isinstance(result, str):
                    problems[index] = result
                else:
                    found[index] = result
                done += 1
                if listener is not None:
                    listener(done, total)
        memory.write(found)
        reports[name] = _report(split, list(found.values()), problems, data.classes.count)
    return reports


def check_labels(data: SegmentationData, workers: int = 2) -> dict[str, SplitReport]:
    """``inspect_data``, but problems are an error: to be called before a training.

    Raises:
        DataError: a file that cannot be used, or a train or val split without any labelled pixel;
            the message lists the first ten.
    """
    reports = inspect_data(data, workers)
    problems = [problem for report in reports.values() for problem in report.problems]
    if problems:
        more = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(
            f"{data.name}, problems: {len(problems)}\n" + "\n".join(problems[:_SHOWN]) + more
        )
    return reports


def _looks(split: Split) -> int:
    is_file = isinstance(split.source, FileSplit)
    return len(split) if is_file else min(len(split), GENERATED_LOOKS)


def _look(split: Split, index: int, class_count: int, memory: _Memory) -> _Found | str:
    remembered = memory.get(index)
    if remembered is not None:
        return remembered
    try:
        _, labels = split.source.arrays(index)
    except DataError as error:
        return str(error)
    counts = np.bincount(labels.ravel(), minlength=256)
    wrong = np.flatnonzero(counts[class_count:IGNORE]) + class_count
    if len(wrong):
        return f"{split.name(index)}: label {wrong[0]}, but there are {class_count} classes"
    pixels = (*(int(value) for value in counts[:class_count]), int(counts[IGNORE]))
    return _Found(labels.shape[0], labels.shape[1], pixels)


def _report(
    split: Split, found: list[_Found], unusable: dict[int, str], class_count: int
) -> SplitReport:
    problems = list(unusable.values())
    pixels = np.zeros(class_count + 1, np.int64)
    for item in found:
        pixels += item.pixels
    # The published masks of a test split may be dummies; nothing can be learnt from others.
    if found and not pixels[:-1].any() and split.source.split != "test":
        problems = [*problems, f"split {split.source.split!r}: every pixel is ignored"]
    return SplitReport(
        count=len(split),
        looked_at=len(found) + len(problems),
        sizes=dict(Counter((item.height, item.width) for item in found).most_common()),
        class_pixels=tuple(int(value) for value in pixels[:-1]),
        ignored_pixels=int(pixels[-1]),
        problems=tuple(problems),
        unusable=tuple(unusable),
    )


class _Memory:
    """Which pairs of files were fine, in one JSON file per split and coding."""

    def __init__(self, folder: Path | None, split: Split, class_count: int) -> None:
        self._source = split.source if isinstance(split.source, FileSplit) else None
        self._known: dict[str, list[int]] = {}
        if self._source is None:
            return
        if folder is None:
            from platformdirs import user_cache_path

            folder = Path(os.environ.get("LATLUT_CACHE") or user_cache_path("latlut")) / "data"
        coding = self._source.coding
        meaning = (
            _VERSION, split.source.split, class_count, isinstance(coding, ColourCoding),
            sorted(coding.label_of.items()), str(self._source.pairs[0].mask.absolute().parent),
        )  # fmt: skip
        digest = hashlib.sha256(repr(meaning).encode()).hexdigest()[:20]
        self._path = folder / f"checked-{digest}.json"
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
            self._known = known if isinstance(known, dict) else {}
        except (OSError, ValueError):
            self._known = {}  # nothing remembered, or damaged: look again

    def get(self, index: int) -> _Found | None:
        key = self._key(index)
        values = self._known.get(key) if key else None
        return _Found(values[0], values[1], tuple(values[2:])) if values else None

    def write(self, found: Mapping[int, _Found]) -> None:
        if self._source is None:
            return
        fine = {
            key: [item.height, item.width, *item.pixels]
            for index, item in found.items()
            if (key := self._key(index))
        }
        if fine == self._known:
            return
        # a cache that cannot be written costs time, no result
        with suppress(WriteError), written_whole(self._path) as part:
            part.write_text(json.dumps(fine), encoding="utf-8")

    def _key(self, index: int) -> str | None:
        if self._source is None:
            return None
        pair: Pair = self._source.pairs[index]
        try:
            image, mask = pair.image.stat(), pair.mask.stat()
        except OSError:
            return None
        times = (image.st_mtime_ns, image.st_size, mask.st_mtime_ns, mask.st_size)
        return "|".join(map(str, (pair.image.absolute(), pair.mask.absolute(), *times)))
