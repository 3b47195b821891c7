"""Table files on disk: finding them by name, refusing what is none, opening them with SQLite."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latlut.errors import TableError, UnknownNameError
from latlut.file_kinds import but_it_is
from latlut.resources import profiles_dir
from latlut.shell import command

BUSY_TIMEOUT_S = 120.0


def find_table(name: str | Path) -> Path:
    """The file that a table name means.

    A path is taken as it is; a bare name is looked up in ``./profiles``, then among the shipped
    tables, as ``NAME.db`` or as the only ``NAME-*.db``.

    Raises:
        UnknownNameError: no such table, or several; names those that are there.
    """
    path = Path(name)
    if path.suffix or path.exists() or len(path.parts) > 1:
        return path
    folders = (Path("profiles"), profiles_dir() / "tables")
    for folder in folders:
        exact = folder / f"{name}.db"
        matches = [exact] if exact.exists() else sorted(folder.glob(f"{name}-*.db"))
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UnknownNameError(
                f"table {str(name)!r} is ambiguous: {', '.join(str(match) for match in matches)}"
            )
    here = sorted(str(found) for folder in folders for found in folder.glob("*.db"))
    raise UnknownNameError(
        f"no table {str(name)!r} in ./profiles or among the shipped ones\n"
        f"there: {', '.join(here) or 'none'}\nmake one with: latlut profile"
    )


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into messages that name the file and what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        if "full" in text or "disk I/O" in text:
            advice = "the disk is full or failing: nothing of this step was written"
        elif "readonly" in text or "read-only" in text:
            advice = "the file or its folder is read-only: choose another place with --table"
        elif "malformed" in text or "not a database" in text:
            advice = "the file is damaged: restore a copy, or profile into a new file with --table"
        elif "unable to open" in text:
            advice = "the file or its folder does not exist or may not be written"
        else:
            raise TableError(f"{path}: {error}") from error
        raise TableError(f"{path}: {text}: {advice}") from error


def check_file(path: Path) -> None:
    """Refuse what is not an SQLite file, or is shorter than its header says.

    Raises:
        TableError: says what the file is instead, and what to do.
    """
    if path.is_dir():
        raise TableError(f"{path} is a folder, not a table")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError as error:
        raise TableError(
            f"no table {path}; make one with: {command('profile', '--table', path)}"
        ) from error
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}") from error
    if not header.startswith(b"SQLite format 3\x00") or len(header) < 100:
        known = but_it_is(path) or ": it does not start as an SQLite file does"
        raise TableError(f"{path} is not a table{known}")
    page_size = struct.unpack(">H", header[16:18])[0]
    page_size = 65536 if page_size == 1 else page_size
    pages, counter = struct.unpack(">I", header[28:32])[0], header[24:28]
    has_log = path.with_name(path.name + "-wal").exists()
    if header[92:96] == counter and pages * page_size > size and not has_log:
        raise TableError(
            f"{path} is truncated: {size} bytes where its header says {pages * page_size}; "
            "restore a copy, or profile into a new file with --table"
        )


def connect_writable(path: Path) -> sqlite3.Connection:
    """A connection that writes through a log, so that readers never wait."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
    connection.execute("PRAGMA foreign_keys = ON")
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            connection.close()
            raise
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def connect_readonly(path: Path) -> sqlite3.Connection:
    """Read-only; where the folder cannot hold the log's index, as an immutable file."""
    uri = path.absolute().as_uri()
    connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection
    except sqlite3.OperationalError as error:
        connection.close()
        if not ("unable to open" in str(error) or "readonly" in str(error)):
            raise
    return sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True)
