"""What latlut's pictures have in common: colours, type, and how a file is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlut.errors import SpecError
from latlut.files.writing import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".pdf", ".png", ".svg")
DPI = 150

INK, MUTED, GRID = "#22272e", "#6b7280", "#e6e8eb"
#: For ``matplotlib.rc_context``.
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": "#9aa1ab",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.hashsalt": "latlut",  # the same data give the same file
}


def picture_path(path: str | Path) -> Path:
    """The path of a picture to write.

    Raises:
        SpecError: a suffix that is not one of ``SUFFIXES``.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SpecError(f"{path}: a picture ends in {', '.join(SUFFIXES)}, received {suffix!r}")
    return path


def save(figure: Figure, path: Path) -> None:
    """Write a figure to what ``picture_path`` gave, whole or not at all.

    Raises:
        WriteError: the file cannot be written.
    """
    suffix = path.suffix.lower()
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)
    with written_whole(path, makes_folder=False) as temporary:
        figure.savefig(temporary, format=suffix[1:], dpi=DPI, facecolor="white", metadata=metadata)


def wrapped(
    figure: Figure, text: str, width_inches: float, *, most_lines: int = 2, **font: Any
) -> str:
    """Words broken into lines that are no wider than they may be, by measuring them.

    Args:
        figure: that the text will stand on.
        text: one line; other white space counts as a space.
        width_inches: of the longest line.
        most_lines: what does not fit into so many ends in "…".
        font: as of ``Figure.text``: ``fontsize``, ``fontweight``.
    """

    def fits(line: str) -> bool:
        # Letters take other widths at other resolutions, by a hundredth or two.
        return _width_inches(figure, line, font) <= 0.98 * width_inches

    lines: list[str] = []
    for word in text.split():
        if lines and fits(f"{lines[-1]} {word}"):
            lines[-1] += f" {word}"
        elif len(lines) < most_lines:
            lines.append(word)
        else:
            lines[-1] += " …"
            break
    return "\n".join(_shortened(line, fits) for line in lines)


def _shortened(line: str, fits: Callable[[str], bool]) -> str:
    if fits(line):
        return line
    kept = line.removesuffix(" …")
    while kept and not fits(f"{kept} …"):
        kept = kept[:-1].rstrip()
    return f"{kept} …"


def _width_inches(figure: Figure, line: str, font: Mapping[str, Any]) -> float:
    artist = figure.text(0, 0, line, **font)
    try:
        return float(artist.get_window_extent().width) / float(figure.dpi)
    finally:
        artist.remove()


@dataclass(frozen=True)
class Heading:
    """A picture's title and what stands below it, in lines that fit."""

    title: str
    subtitle: str
    inches: float
    """Height of both, with the space above and below."""


#: Of a heading: fonts, height of a line, and space above, between and below, in inches.
_TITLE: Any = {"fontsize": 13, "fontweight": "bold"}
_SUBTITLE: Any = {"fontsize": 9}
_TITLE_LINE, _SUBTITLE_LINE = 0.225, 0.16
_ABOVE, _BETWEEN, _BELOW = 0.15, 0.06, 0.1


def heading_of(figure: Figure, title: str, subtitle: str, width_inches: float) -> Heading:
    """A heading of at most two lines of title and three below, no wider than it may be."""
    title = wrapped(figure, title, width_inches, most_lines=2, **_TITLE)
    subtitle = wrapped(figure, subtitle, width_inches, most_lines=3, **_SUBTITLE)
    inches = _ABOVE + _BELOW
    if title:
        inches += _TITLE_LINE * (title.count("\n") + 1) + _BETWEEN
    if subtitle:
        inches += _SUBTITLE_LINE * (subtitle.count("\n") + 1)
    return Heading(title, subtitle, inches)


def draw_heading(figure: Figure, heading: Heading, left_inches: float) -> None:
    """Write a heading at the top of a figure that has its final size."""
    width, height = figure.get_size_inches()
    top = _ABOVE
    if heading.title:
        figure.text(left_inches / width, 1 - top / height, heading.title, va="top", **_TITLE)
        top += _TITLE_LINE * (heading.title.count("\n") + 1) + _BETWEEN
    if heading.subtitle:
        figure.text(
            left_inches / width, 1 - top / height, heading.subtitle, va="top", color=MUTED,
            **_SUBTITLE,
        )  # fmt: skip
