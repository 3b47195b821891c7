"""One process at a time goes on with a run: a lock on its folder.

The lock is ``flock`` on the folder itself, so it vanishes with the process that holds it, however
that ends. Where the file system knows no such locks nothing is refused.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latlut.errors import LatlutError
from latlut.files.writing import why_not_written

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold a run's folder for the block; it is made if need be, and gone again if still empty.

    Args:
        folder: of the run.

    Raises:
        LatlutError: another process, or this one, holds it; or it cannot be made.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LatlutError(
            f"cannot write the run's folder {folder}: {why_not_written(error)}"
        ) from error
    descriptor = _locked(folder)
    try:
        yield
    finally:
        if descriptor is not None:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # for processes that inherited it too
            os.close(descriptor)
        with suppress(OSError):  # it holds the run
            for place in made:
                place.rmdir()


def _locked(folder: Path) -> int | None:
    """A descriptor that locks the folder; None where that cannot be done."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise LatlutError(
            f"cannot write the run's folder {folder}: {why_not_written(error)}"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _HELD:
            raise LatlutError(
                f"{folder} is in use: another process is going on with this run\n"
                "wait until it has ended, or name another folder with --run"
            ) from error
        return None
    return descriptor
