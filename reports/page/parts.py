"""What a page consists of: sections of facts, sentences, charts, pictures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latlut.reports.page.labels import time_text


@dataclass(frozen=True)
class Facts:
    """Names with their values, one a row."""

    rows: Mapping[str, object]
    kind: str = "facts"


@dataclass(frozen=True)
class Text:
    """A sentence or several; ``tone`` is ``ok``, ``caution``, ``bad`` or empty."""

    text: str
    tone: str = ""
    kind: str = "text"


@dataclass(frozen=True)
class Chart:
    """A Vega-Lite figure."""

    name: str
    """By which ``latlut table plot`` finds it."""
    title: str
    spec: Mapping[str, Any]
    """JSON-able Vega-Lite."""
    note: str = ""
    """What is drawn, below the figure."""
    kind: str = "chart"


@dataclass(frozen=True)
class Picture:
    """An image inside the page."""

    title: str
    uri: str
    """``data:image/...``"""
    note: str = ""
    kind: str = "picture"


@dataclass(frozen=True)
class Grid:
    """A table that the reader can sort and filter."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""
    has_filter: bool = False
    kind: str = "grid"


Block = Facts | Text | Chart | Picture | Grid


@dataclass(frozen=True)
class Section:
    """What a page says of one file."""

    title: str
    path: str
    """The file."""
    what: str
    """What it is, such as "latency table"."""
    blocks: Sequence[Block] = field(default_factory=tuple)


def number(value: object, digits: int = 4) -> str:
    """A value as the page shows it: floats with so many significant digits, times to the minute,
    None as nothing."""
    if value is None:
        return ""
    if isinstance(value, float):
        if value != value:
            return ""
        return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"
    return time_text(str(value))
