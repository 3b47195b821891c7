"""Files that are there whole or not at all: made in a folder beside their place, then moved there.

Until they are moved nothing is where they belong, and what was there before stays; so whatever
makes them can also look at them again, and refuse.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from latlut.errors import LatlutError


class WriteError(LatlutError):
    """A file that cannot be written: the disk is full, or the folder read-only."""


@contextmanager
def written_whole(
    path: Path,
    *,
    refusal: Callable[[OSError], LatlutError] | None = None,
    makes_folder: bool = True,
) -> Iterator[Path]:
    """Gives the path to write ``path`` to for now; files beside it there become its neighbours.

    When the block ends the file and its neighbours are flushed and moved into place, ``path``
    last. When it raises, they are gone.

    Args:
        path: where the file belongs.
        refusal: makes the error that is raised in place of a WriteError.
        makes_folder: make the folder of ``path`` where it is missing, rather than refuse.

    Raises:
        WriteError: they cannot be written or moved.
    """
    try:
        if makes_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            yield temporary
            files = sorted(Path(folder).iterdir(), key=lambda file: file == temporary)
            for file in files:
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
            for file in files:
                os.replace(file, path.with_name(file.name))
    except OSError as error:
        if refusal is not None:
            raise refusal(error) from error
        raise WriteError(f"cannot write {path}: {error}; what was there before stays") from error
