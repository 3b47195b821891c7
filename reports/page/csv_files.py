"""Rows of the CSV files that runs and comparisons leave, and numbers in their cells."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from latlut.errors import ImportFileError
from latlut.files.reading import read_text

MAX_BYTES = 20 << 20


def read_rows(path: Path, what: str) -> list[dict[str, str]]:
    """The rows of a file with a header, cells as text.

    Args:
        path: of at most ``MAX_BYTES``.
        what: it should be, for the message.

    Raises:
        ImportFileError: it cannot be read, or is no such file.
    """
    try:
        return list(csv.DictReader(read_text(path, limit_bytes=MAX_BYTES).splitlines()))
    except csv.Error as error:
        raise ImportFileError(f"{path} is no {what}: {error}") from error


def number_in(cell: object) -> float | None:
    """A finite number that a cell holds, None if it holds none."""
    if not isinstance(cell, str | int | float):
        return None
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
