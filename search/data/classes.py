"""Class lists: what the labels of a data set mean, and the colours they are drawn in."""

from __future__ import annotations

from dataclasses import dataclass

from latlut.errors import DataError

#: The label of pixels that neither training nor scores look at.
IGNORE = 255

#: Largest number of classes: labels are bytes, and 254 marks what could not be mapped.
MAX_CLASSES = 254

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Classes:
    """Names and colours of a data set's classes; class k is labelled k.

    Raises:
        DataError: lists of different length, names that repeat, a colour outside 0 to 255, no
            class or more than 254.
    """

    names: tuple[str, ...]
    """One per class, all different. colours: RGB, one per class."""
    colours: tuple[Rgb, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise DataError(f"{len(self.names)} classes: expected 1 to {MAX_CLASSES}")
        if len(self.names) != len(self.colours):
            raise DataError(f"{len(self.names)} class names but {len(self.colours)} colours")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise DataError(f"class names that repeat: {', '.join(repeated)}")
        for name, colour in zip(self.names, self.colours, strict=True):
            if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
                raise DataError(f"class {name!r}: colour {colour} is not three numbers, 0 to 255")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def count(self) -> int:
        """Number of classes; ignored pixels are none."""
        return len(self.names)
