"""Files that are there whole or not at all, and folders of them that stay within a size.

Files are made in a folder beside their place, then moved there. Until they are moved nothing is
where they belong, and what was there before stays; so whatever makes them can also look at them
again, and refuse. Such a folder is locked as long as its process lives; what a killed one left
behind is removed by the next that makes a file, or opens a table, in the same place.
"""

from __future__ import annotations

import csv
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from latlut.errors import LatlutError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

_ADVICE = {
    errno.ENOSPC: "the disk is full, make room and give the same command again",
    errno.EDQUOT: "your share of the disk is used up, make room and give the same command again",
    errno.EROFS: "the disk is read-only, name a place that can be written",
}
#: How the names of folders end in which files are made.
_PART = ".latlut-part"
#: What file systems without hard links answer.
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


class WriteError(LatlutError):
    """A file that cannot be written: the disk is full, or the folder read-only."""


def why_not_written(error: OSError) -> str:
    """The system's reason, and what to do where that is known."""
    advice = _ADVICE.get(error.errno or 0)
    if advice is not None:
        return f"{error.strerror}: {advice}"
    return str(error) if error.filename is not None else str(error.strerror)


def check_writable(path: Path, *endings: str, makes_folder: bool = False) -> None:
    """Refuse a file that could not be written, before the work that it is the result of.

    Args:
        path: to write later.
        endings: that are known, such as ``.png``; any if there are none.
        makes_folder: a folder that is missing is made later.

    Raises:
        WriteError: another ending, no such folder, or one that may not be written.
    """
    if endings and path.suffix.lower() not in endings:
        raise WriteError(f"{path}: its name has to end in {', '.join(endings)}")
    if path.is_dir():
        raise WriteError(f"{path} is a folder: name a file in it")
    folder = path.parent
    if makes_folder:
        folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise WriteError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(f"cannot write {path}: the folder {folder} may not be written")


@contextmanager
def written_whole(
    path: Path,
    *,
    refusal: Callable[[OSError], LatlutError] | None = None,
    makes_folder: bool = True,
) -> Iterator[Path]:
    """Gives the path to write ``path`` to for now; files beside it there become its neighbours.

    When the block ends the file and its neighbours are flushed and moved into place, ``path``
    last. When it raises, they are gone. What killed processes left in the same folder is removed.

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
        elif not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}")
        with folder_beside(path) as folder:
            temporary = folder / path.name
            yield temporary
            files = sorted(folder.iterdir(), key=lambda file: file == temporary)
            for file in files:
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
            for file in files:
                os.replace(file, path.with_name(file.name))
            _flush_folder(path.parent)
    except OSError as error:
        if refusal is not None:
            raise refusal(error) from error
        raise WriteError(
            f"cannot write {path}: {why_not_written(error)}; what was there before stays"
        ) from error


def _flush_folder(folder: Path) -> None:
    """Make the names in a folder outlast a power failure, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` to make files in; it and what is in it then are gone afterwards.

    Raises:
        OSError: it cannot be made.
    """
    remove_abandoned(path.parent)
    prefix = f".{path.name[:100]}."
    while True:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix, suffix=_PART))
        lock = _lock(folder, waits=True)
        if folder.exists():
            break
        _unlock(lock)  # another process saw it unlocked, and took it for abandoned
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left of files that they were making in ``folder``."""
    with suppress(OSError):  # a folder that cannot be listed, or is not there
        for path in sorted(folder.glob(f".*{_PART}")):
            with suppress(OSError):  # another process removes it as well
                lock = _lock(path, waits=False)
                if lock is not None:
                    shutil.rmtree(path, ignore_errors=True)
                    _unlock(lock)


def _lock(folder: Path, *, waits: bool) -> int | None:
    """A descriptor that locks a folder; None where another holds it, or locks are unknown."""
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def place_new(file: Path, path: Path) -> None:
    """Give a finished file, on the same disk, the place ``path``, where nothing is yet.

    Raises:
        FileExistsError: something is there; it stays, and so does ``file``.
        OSError: the place cannot be taken.
    """
    try:
        os.link(file, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            os.replace(file, path)
        except OSError:
            path.unlink()
            raise
    _flush_folder(path.parent)


def cache_folder(name: str) -> Path:
    """The folder of that name in the user's cache folder, or in ``LATLUT_CACHE``."""
    if chosen := os.environ.get("LATLUT_CACHE"):
        return Path(chosen) / name
    from platformdirs import user_cache_path

    return user_cache_path("latlut") / name


def read_cached(path: Path) -> bytes | None:
    """A cached file's content, which counts as a use of it; None where it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    with suppress(OSError):  # a cache that is read-only is still good to read
        os.utime(path)
    return content


def write_cached(path: Path, content: bytes) -> bool:
    """Store a file whole; False where it cannot be written, which is no reason to stop."""
    try:
        with written_whole(path) as temporary:
            temporary.write_bytes(content)
    except WriteError:
        return False
    return True


class BoundedFolder:
    """Cached files by name, of which those that were not used for longest go first.

    Args:
        folder: where they lie, in folders by the first two letters of their names.
        suffix: of every file's name.
        limit_bytes: what ``trim`` leaves of them unless told otherwise.
    """

    def __init__(self, folder: Path, suffix: str, limit_bytes: int) -> None:
        self.folder = folder
        self.suffix = suffix
        self.limit_bytes = limit_bytes

    def path_of(self, name: str) -> Path:
        """Where the file of that name lies, whether it is there or not."""
        return self.folder / name[:2] / f"{name}{self.suffix}"

    def size_bytes(self) -> int:
        """Bytes that the files take on disk."""
        return sum(size for _, size, _ in self._files())

    def trim(self, limit_bytes: int | None = None) -> None:
        """Delete the files that were not used for longest until the rest fits."""
        files = sorted(self._files())
        excess = sum(size for _, size, _ in files)
        excess -= self.limit_bytes if limit_bytes is None else limit_bytes
        for _, size, path in files:
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """(time of the last use, bytes, path) of every file."""
        for path in self.folder.glob(f"*/*{self.suffix}"):
            with suppress(OSError):  # another process has just deleted it
                yield path.stat().st_mtime, path.stat().st_size, path


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows as a CSV file, whole or not at all; None is an empty cell.

    Raises:
        LatlutError: as ``written_whole``.
    """
    with written_whole(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
