"""Files of entries as CSV: as latlut writes them, and as spreadsheets write them again.

Read are commas, semicolons and tabs between cells, decimal commas where cells are not separated by
commas, byte order marks, whole lines in quotes, empty cells at the ends of lines, and a first line
``# identity: {json}``, which files of earlier versions have.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from latlut.errors import ImportFileError

IDENTITY_PREFIX = "# identity:"
_DELIMITERS = (",", ";", "\t")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")

Row = tuple[int, Mapping[str, object]]


def read_csv(
    path: Path, data: bytes, required: Collection[str], numbers: Collection[str]
) -> tuple[dict[str, Any] | None, list[str], list[Row]]:
    """Identity of the first lines, columns, and rows by line number.

    Args:
        path: of the file, for messages.
        data: its content.
        required: columns that tell the header from other lines.
        numbers: columns whose cells may have decimal commas.

    Raises:
        ImportFileError: no text, no CSV, lines of different lengths, numbers written in two ways.
    """
    text = _decoded(path, data)
    lines = text.splitlines(keepends=True)
    head = 0
    identity = None
    while head < len(lines) and lines[head].lstrip('"').startswith("#"):
        plain = _plain_comment(lines[head])
        if plain.startswith(IDENTITY_PREFIX):
            identity = parsed_identity(path, plain.removeprefix(IDENTITY_PREFIX))
        head += 1
    body = "".join(lines[head:])
    delimiter = _delimiter(body, required)
    parsed = _lines(path, body, delimiter, head)
    _, columns = next(parsed, (0, []))
    columns = _without_empty_end(columns)
    rows: list[Row] = [(row, _row(path, row, cells, columns)) for row, cells in parsed]
    if delimiter != ",":
        rows = _with_points(path, rows, numbers)
    return identity, columns, rows


def parsed_identity(path: Path, text: str) -> dict[str, Any]:
    """The JSON object that an identity is written as.

    Raises:
        ImportFileError: it is none.
    """
    try:
        identity = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImportFileError(f"{path}: the identity is not JSON: {text.strip()[:120]}") from error
    if not isinstance(identity, dict):
        raise ImportFileError(f"{path}: the identity is not a JSON object: {text.strip()[:120]}")
    return identity


def _decoded(path: Path, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImportFileError(f"{path}: not a text file (byte {error.start})") from error
    if "\0" in text:
        raise ImportFileError(f"{path}: not a text file (byte {text.index(chr(0))} is zero)")
    return text


def _plain_comment(line: str) -> str:
    """A comment as it was before a spreadsheet took it for cells."""
    line = line.strip()
    if not line.startswith('"') and '""' not in line:
        return re.sub(r"[,;\t]+$", "", line)
    for delimiter in _DELIMITERS:
        cells = next(csv.reader([line], delimiter=delimiter), [])
        joined = ",".join(cells).rstrip(",")
        if joined.endswith("}"):
            return joined
    return line


def _delimiter(body: str, required: Collection[str]) -> str:
    """What separates the cells of the header, a comma where no header can be told."""
    header = next((line for line in body.splitlines() if line.strip()), "")
    for delimiter in _DELIMITERS:
        cells = _unquoted(next(csv.reader([header], delimiter=delimiter), []), delimiter)
        if set(required) <= {cell.strip() for cell in cells}:
            return delimiter
    return ","


def _unquoted(cells: list[str], delimiter: str) -> list[str]:
    """The cells of a line that stands in quotes as a whole."""
    if len(cells) == 1 and delimiter in cells[0]:
        return next(csv.reader([cells[0]], delimiter=delimiter), cells)
    return cells


def _lines(path: Path, body: str, delimiter: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each line that is not blank."""
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                unquoted = _unquoted(cells, delimiter)
                yield skipped + reader.line_num, [cell.strip() for cell in unquoted]
    except csv.Error as error:
        row = skipped + reader.line_num
        raise ImportFileError(f"{path}: row {row}: not CSV: {error}") from error


def _without_empty_end(cells: list[str]) -> list[str]:
    while cells and not cells[-1]:
        cells = cells[:-1]
    return cells


def _row(path: Path, row: int, cells: list[str], columns: Sequence[str]) -> dict[str, object]:
    if len(cells) > len(columns) and not any(cells[len(columns) :]):
        cells = cells[: len(columns)]
    if len(cells) != len(columns):
        raise ImportFileError(
            f"{path}: row {row} has {len(cells)} cells, the header has {len(columns)}"
        )
    return {name: cell or None for name, cell in zip(columns, cells, strict=True)}


def _with_points(path: Path, rows: Sequence[Row], numbers: Collection[str]) -> list[Row]:
    """The rows with decimal points, of a file that writes all its numbers with commas."""
    cells = [
        (row, name, str(values[name]))
        for row, values in rows
        for name in numbers
        if values.get(name) is not None
    ]
    commas = [item for item in cells if "," in item[2]]
    points = [item for item in cells if "." in item[2]]
    if not commas:
        return list(rows)
    wrong = [item for item in commas if not _DECIMAL_COMMA.fullmatch(item[2])]
    if points or wrong:
        (row, name, text), other = (wrong or commas)[0], (points or commas)[0]
        raise ImportFileError(
            f"{path}: row {row}, column {name}: {text!r} beside {other[2]!r} in row {other[0]}: "
            "a comma could stand for thousands; write all numbers with decimal points"
        )
    return [
        (row, {k: str(v).replace(",", ".") if k in numbers and v else v for k, v in values.items()})
        for row, values in rows
    ]
