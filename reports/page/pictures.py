"""Images inside a page, as ``data:`` addresses."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable
from pathlib import Path

from latlut.files.reading import read_file

MAX_PICTURE_BYTES = 8 << 20
_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg",
          ".svg": "image/svg+xml"}  # fmt: skip


def drawn(draw: Callable[[Path], object]) -> str:
    """What ``draw`` writes into the .svg file that it is given.

    In an image of its own, so that names in one picture cannot meet those of another.
    """
    with tempfile.TemporaryDirectory(prefix="latlut-") as folder:
        path = Path(folder) / "picture.svg"
        draw(path)
        return picture_uri(path)


def picture_uri(path: Path) -> str:
    """A picture's file.

    Raises:
        ImportFileError: it cannot be read, or is larger than ``MAX_PICTURE_BYTES``.
    """
    content = read_file(path, MAX_PICTURE_BYTES)
    kind = _TYPES[path.suffix.lower()]
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
