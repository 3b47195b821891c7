"""SegmentationData: classes and splits, the one form in which every data set is handed on.

Symbols: H, W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latlut.search.data.classes import Classes


class Example(NamedTuple):
    """``image`` (3, H, W) uint8 RGB and ``label`` (H, W) uint8, 255 where a pixel is ignored."""

    image: Tensor
    label: Tensor


class Source(Protocol):
    """Where a split's images come from. It is sent to worker processes, so it can be pickled."""

    @property
    def split(self) -> str:
        """Name of the split."""
        ...

    def __len__(self) -> int: ...

    def arrays(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image (H, W, 3) and labels (H, W), both uint8; labels are classes or 255."""
        ...

    def name(self, index: int) -> str:
        """What an error calls the image."""
        ...


#: A split that takes no more than this is kept in memory as it is read, by every process that
#: reads it.
KEPT_BYTES = 256 << 20


@dataclass(frozen=True)
class Split:
    """One split as a sequence of ``Example``, read lazily; ``source`` says from where.

    What is handed out may be kept for the next epoch: it is not to be written to.
    """

    source: Source
    _kept: dict[int, Example] = field(default_factory=dict, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[Split], tuple[Source]]:
        return Split, (self.source,)  # without what is kept

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        """The image and labels of one example.

        Raises:
            IndexError: no such index.
            DataError: files that cannot be used.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"split {self.source.split!r} has {len(self)} images, not {index}")
        index %= len(self)
        if (kept := self._kept.get(index)) is not None:
            return kept
        image, labels = self.source.arrays(index)
        found = Example(
            torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            torch.from_numpy(np.ascontiguousarray(labels)),
        )
        if len(self) * (found.image.numel() + found.label.numel()) <= KEPT_BYTES:
            self._kept[index] = found
        return found

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def name(self, index: int) -> str:
        """What an error calls the image."""
        return self.source.name(index % len(self))


@dataclass(frozen=True)
class SegmentationData:
    """A data set for semantic segmentation."""

    name: str
    """Kind and place, such as ``cityscapes:/data/cityscapes``."""
    classes: Classes
    """What the labels mean."""
    train: Split
    val: Split
    """``train``, ``val``: splits. test: where the layout has one with masks, else None."""
    test: Split | None = None

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name."""
        found = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in found.items() if split is not None}
