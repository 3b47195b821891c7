"""Files of entries as CSV: as latlut writes them, and as spreadsheets write them again.

Read are commas, semicolons and tabs between cells, decimal commas where cells are not separated by
commas, byte order marks, whole lines in quotes, empty cells at the ends of lines, and a first line
``# identity: {json}``, which files of earlier versions have.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from latlut.errors import ImportFileError
from latlut.files.strict_json import parse_json

IDENTITY_PREFIX = "# identity:"
_DELIMITERS = (",", ";", "\t")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")

#: A line that is a comment, as spreadsheets write it too.
_COMMENT = re.compile(r'"*+#[^\r\n]*+(?:\r\n|\r|\n|\Z)')

#: Of a file of entries, also in Parquet. A table of a million entries is ten search spaces on one
#: device; a row of a short text takes 0.5 kB while it is read.
MAX_ROWS = 1_000_000
#: Those of an entry and of an identity are 20; others are left out.
MAX_COLUMNS = 256
#: latlut writes one.
MAX_COMMENTS = 1000

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
    head = start = 0
    identity = None
    while (line := _COMMENT.match(text, start)) is not None:
        plain = _plain_comment(path, line[0])
        if plain.startswith(IDENTITY_PREFIX):
            identity = parsed_identity(path, plain.removeprefix(IDENTITY_PREFIX))
        head, start = head + 1, line.end()
        if head > MAX_COMMENTS:
            raise ImportFileError(f"{path}: more than {MAX_COMMENTS} lines of comments at its top")
    body = text[start:]
    delimiter = _delimiter(path, body, required)
    parsed = _lines(path, body, delimiter, head)
    _, columns = next(parsed, (0, []))
    columns = _without_empty_end(columns)
    if len(columns) > MAX_COLUMNS:
        raise ImportFileError(
            f"{path}: {len(columns)} columns, a file of entries has {MAX_COLUMNS} at most"
        )
    rows: list[Row] = []
    for row, cells in parsed:
        if len(rows) == MAX_ROWS:
            raise ImportFileError(f"{path}: more than {MAX_ROWS} rows, split the file")
        rows.append((row, _row(path, row, cells, columns)))
    if delimiter != ",":
        rows = _with_points(path, rows, numbers)
    return identity, columns, rows


def parsed_identity(path: Path, text: str) -> dict[str, Any]:
    """The JSON object that an identity is written as.

    Raises:
        ImportFileError: it is none.
    """
    try:
        identity = parse_json(text, "an identity")
    except ImportFileError as error:
        raise ImportFileError(f"{path}: the identity: {error}: {text.strip()[:120]}") from error
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


def _plain_comment(path: Path, line: str) -> str:
    """A comment as it was before a spreadsheet took it for cells."""
    line = line.strip()
    if not line.startswith('"') and '""' not in line:
        return line.rstrip(",;\t")
    for delimiter in _DELIMITERS:
        cells = _cells(path, line, delimiter)
        joined = ",".join(cells).rstrip(",")
        if joined.endswith("}"):
            return joined
    return line


def _delimiter(path: Path, body: str, required: Collection[str]) -> str:
    """What separates the cells of the header, a comma where no header can be told."""
    header = next((line for line in io.StringIO(body, newline=None) if line.strip()), "")
    for delimiter in _DELIMITERS:
        cells = _unquoted(path, _cells(path, header.rstrip("\n"), delimiter), delimiter)
        if set(required) <= {cell.strip() for cell in cells}:
            return delimiter
    return ","


def _cells(path: Path, line: str, delimiter: str) -> list[str]:
    """The cells of one line."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error as error:
        raise ImportFileError(f"{path}: not CSV: {error}: {line[:80]!r}") from error


def _unquoted(path: Path, cells: list[str], delimiter: str) -> list[str]:
    """The cells of a line that stands in quotes as a whole."""
    if len(cells) == 1 and delimiter in cells[0]:
        return _cells(path, cells[0], delimiter) or cells
    return cells


def _lines(path: Path, body: str, delimiter: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each line that is not blank."""
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                unquoted = _unquoted(path, cells, delimiter)
                yield skipped + reader.line_num, [cell.strip() for cell in unquoted]
    except csv.Error as error:
        row = skipped + reader.line_num
        raise ImportFileError(f"{path}: row {row}: not CSV: {error}") from error


def _without_empty_end(cells: list[str]) -> list[str]:
    filled = [index for index, cell in enumerate(cells, start=1) if cell]
    return cells[: filled[-1] if filled else 0]


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
