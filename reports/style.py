"""What latlut's pictures have in common: colours, type, and how a file is written."""

from __future__ import annotations

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
