"""Printed tables: columns side by side where they fit, else rows of one line per value.

Nothing is ever cut off. A narrow terminal wraps texts at spaces; where that does not suffice,
columns that can be spared are left out, and at last each row becomes a block with a line for every
column. Columns without any value are left out.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

#: Between two columns.
GAP = 2
#: A text column is wrapped down to this width before the rows are written as blocks.
LEAST_TEXT = 12
_NUMBER = re.compile(r"[±+-]?[0-9][0-9.,]*(e[+-]?[0-9]+)?%?( \*)?|-|")


def shown(value: object) -> str:
    """A cell's text: numbers to four digits, ``-`` where there is none, control codes escaped."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return number_text(value)
    text = str(value)
    return text if text.isprintable() else "".join(map(_printable, text))


def number_text(value: float) -> str:
    """Four significant digits without an exponent up to 15 digits; ``-`` where not finite."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if 9999.5 <= abs(value) < 1e15 else f"{value:.4g}"


def output_width() -> int | None:
    """Columns to print in: COLUMNS, else the terminal's; None where the output is no terminal."""
    if os.environ.get("COLUMNS", "").isdecimal() or sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    return None


class TableText(NamedTuple):
    """The lines of a table."""

    header: list[str]
    """Empty where rows became blocks."""
    body: list[str]
    left_out: list[str]
    """Columns that there was no room for."""


def table_text(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    width: int | None,
    spare: Sequence[str] = (),
) -> TableText:
    """A table as lines.

    Args:
        columns: titles.
        rows: a value per column; None and "" are empty.
        width: to fit in, in characters; None for any.
        spare: titles of columns to leave out where they do not fit, the first one first.
    """
    kept = [
        place for place in range(len(columns))
        if not rows or place == 0 or any(row[place] not in (None, "") for row in rows)
    ]  # fmt: skip
    texts = [[columns[place] for place in kept]]
    texts += [[shown(row[place]) for place in kept] for row in rows]
    left_out: list[str] = []
    sparable = [title for title in spare if title in texts[0]]
    while (widths := _fitting(texts, width)) is None and sparable:
        left_out.append(sparable.pop(0))
        place = texts[0].index(left_out[-1])
        texts = [row[:place] + row[place + 1 :] for row in texts]
    titles, *cells = texts
    if widths is None:
        return TableText([], _blocks(titles, cells, width or 80), left_out)
    is_number = [
        bool(cells) and all(_NUMBER.fullmatch(row[place]) for row in cells)
        for place in range(len(titles))
    ]
    header, *body = (_row_lines(row, widths, is_number) for row in (titles, *cells))
    return TableText(header, [line for lines in body for line in lines], left_out)


def _row_lines(row: Sequence[str], widths: Sequence[int], is_number: Sequence[bool]) -> list[str]:
    """A row of cells, in as many lines as its most wrapped cell."""
    wrapped = [_wrapped(text, size) for text, size in zip(row, widths, strict=True)]
    return [
        (" " * GAP)
        .join(
            _padded(own[number] if number < len(own) else "", size, right)
            for own, size, right in zip(wrapped, widths, is_number, strict=True)
        )
        .rstrip()
        for number in range(max(map(len, wrapped)))
    ]


def _fitting(rows: Sequence[Sequence[str]], width: int | None) -> list[int] | None:
    """Widths of the columns that fit in, or None."""
    by_column = list(zip(*rows, strict=True))
    widths = [max(map(_cells, column)) for column in by_column]
    if width is None:
        return widths
    least = [_least_width(title, cells) for title, *cells in by_column]
    while sum(widths) + GAP * (len(widths) - 1) > width:
        shrinkable = [place for place, own in enumerate(widths) if own > least[place]]
        if not shrinkable:
            return None
        widths[max(shrinkable, key=lambda place: widths[place])] -= 1
    return widths


def _least_width(title: str, cells: Sequence[str]) -> int:
    """The narrowest that a column can be: titles and long texts wrap at spaces, numbers do not."""
    own = max(map(_cells, cells), default=0)
    if any(" " in text for text in cells) and own > LEAST_TEXT:
        own = max([LEAST_TEXT, *map(_longest_word, cells)])
    return max(own, _longest_word(title))


def _blocks(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Each row as its first cell with a line per further column below it."""
    lines = []
    for row in rows:
        lines += _wrapped(f"{titles[0]}: {row[0]}" if titles[0] else row[0], width)
        for title, text in zip(titles[1:], row[1:], strict=True):
            if text not in ("", "-"):
                lines += [f"  {line}" for line in _wrapped(f"{title}: {text}", width - 2)]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines; a word that is longer keeps a line of its own."""
    if _cells(text) <= width:
        return [text]
    return textwrap.wrap(
        text, max(width, 1), break_long_words=False, break_on_hyphens=False
    ) or [""]  # fmt: skip


def _padded(text: str, width: int, to_the_right: bool) -> str:
    space = " " * (width - _cells(text))
    return space + text if to_the_right else text + space


def _longest_word(text: str) -> int:
    return max(map(_cells, text.split()), default=0)


def _cells(text: str) -> int:
    """How many places of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _printable(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]
