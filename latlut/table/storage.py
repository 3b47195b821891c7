"""Table files on disk: finding them by name, refusing what is none, opening them with SQLite."""

from __future__ import annotations

import glob
import os
import shlex
import shutil
import sqlite3
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from latlut.errors import TableError, UnknownNameError, did_you_mean, nearest_name
from latlut.files.kinds import but_it_is
from latlut.resources import profiles_dir
from latlut.shell import command

BUSY_TIMEOUT_S = 120.0

#: What reading a file may take, in steps of SQLite's machine: a sound table needs less. A damaged
#: one can send a query round in circles.
_STEPS, _STEPS_PER_BYTE = 300_000_000, 30
_STEPS_PER_TICK = 1_000_000
#: Files beside a database that hold what is not in it yet, or no longer.
_LOGS = ("-wal", "-journal")

#: Endings of files that a new table is not named as.
_OF_OTHER_FILES = (
    ".csv", ".json", ".npy", ".onnx", ".parquet", ".pdf", ".png", ".svg", ".toml", ".txt", ".xml",
)  # fmt: skip

#: What to do with a damaged table.
RESTORE = "restore a copy, or profile into a new file with --table"


def shipped_tables() -> list[Path]:
    """The tables that ship with latlut, by name."""
    return sorted((profiles_dir() / "tables").glob("*.db"))


def is_shipped(path: Path) -> bool:
    """Whether that file is one of the tables that ship with latlut."""
    return path.resolve().parent == (profiles_dir() / "tables").resolve()


def shown_path(path: Path) -> str:
    """A table as messages name it: its file, or the bare name of one that ships with latlut."""
    return path.stem if is_shipped(path) else str(path)


def copying(path: Path) -> tuple[str, Path]:
    """The command that copies a shipped table into ``./profiles``, and the copy; none is replaced.

    The copy has the table's bare name, which means it from then on.
    """
    copy = Path("profiles") / path.name
    return f"mkdir -p profiles && {shlex.join(['cp', '-n', str(path), str(copy)])}", copy


def refuse_shipped(path: Path) -> None:
    """Refuse to write into a table that ships with latlut.

    Raises:
        TableError: it is one; says how to copy it.
    """
    if is_shipped(path):
        raise TableError(
            f"{shown_path(path)} ships with latlut and is never written: use a copy\n"
            f"make one with: {copying(path)[0]}"
        )


def table_names() -> list[str]:
    """Bare names of the tables in ``./profiles`` and of those that ship with latlut."""
    own = sorted(path.stem for path in Path("profiles").glob("*.db"))
    return list(dict.fromkeys([*own, *(path.stem for path in shipped_tables())]))


def _short_names() -> list[str]:
    """The names before each hyphen of a table's name, any of which may find it."""
    parts = [name.split("-") for name in table_names()]
    return ["-".join(words[:count]) for words in parts for count in range(1, len(words))]


def find_table(name: str | Path) -> Path:
    """The file that a table name means, where it is read or continued.

    A path (with a folder or an ending) is taken as it is. A bare name is looked up in
    ``./profiles``, then among the shipped tables: ``NAME.db``, else the table whose name begins
    with ``NAME-``. Tables whose names go on from another's (``-batch2``, ``-2threads``,
    ``-shard1of4``) are found by their own names; the name that they share means that other one.

    Raises:
        UnknownNameError: no such table, or several; names those that are there.
    """
    if is_path(name):
        return Path(name)
    folders = (Path("profiles"), profiles_dir() / "tables")
    for folder in folders:
        if found := _named(folder, str(name)):
            return found
    meant = did_you_mean(str(name), table_names(), "tables here", _short_names())
    raise UnknownNameError(
        f"no table {str(name)!r} in ./profiles or among the shipped ones\n{meant}"
        + ("" if meant.startswith("did you mean") else f"\n{_making(name)}")
    )


def _making(name: str | Path) -> str:
    """How to make a table of that name."""
    return f"make one with: {command('profile', '--table', name)}"


def table_to_make(name: str | Path) -> Path:
    """The file that a table name means where it may be new: as ``find_table``, but a bare name
    without a table in ``./profiles`` means ``profiles/NAME.db``. Shipped tables are not written.

    Raises:
        UnknownNameError: several tables have that name.
    """
    if is_path(name):
        return Path(name)
    return _named(Path("profiles"), str(name)) or Path("profiles") / f"{name}.db"


def refuse_other_ending(path: Path) -> None:
    """Refuse to make a table under the name of a file of another kind.

    Raises:
        TableError: it ends as such a file does.
    """
    if path.suffix.lower() in _OF_OTHER_FILES and not path.exists():
        raise TableError(
            f"{path}: a table is an SQLite file, its name has to end in .db, such as "
            f"{path.with_suffix('.db')}"
        )


def is_path(name: str | Path) -> bool:
    """Whether a table is named by its file, not by a bare name."""
    path = Path(name)
    return isinstance(name, Path) or bool(path.suffix) or os.sep in name or path.is_file()


def _named(folder: Path, name: str) -> Path | None:
    """The table of that bare name in a folder; None where there is none."""
    exact = folder / f"{name}.db"
    if exact.exists():
        return exact
    matches = sorted(folder.glob(f"{glob.escape(name)}-*.db"))
    stems = sorted((path.stem for path in matches), key=len)
    if stems and all(stem.startswith(f"{stems[0]}-") for stem in stems[1:]):
        return folder / f"{stems[0]}.db"
    if matches:
        raise UnknownNameError(
            f"several tables are named {name!r}: {', '.join(path.stem for path in matches)}; "
            "write the whole name"
        )
    return None


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into messages that name the file and what to do."""
    try:
        yield
    except UnicodeDecodeError as error:  # of names in the file's schema
        name = shown_path(path)
        raise TableError(f"{name}: text that is not UTF-8: the file is damaged: {RESTORE}") from (
            error
        )
    except (sqlite3.Error, sqlite3.Warning) as error:
        name, text = shown_path(path), str(error)
        if "full" in text or "disk I/O" in text:
            advice = (
                "the disk is full, read-only or failing: nothing of this step was written; what "
                "was there before stays"
            )
        elif "readonly" in text or "read-only" in text:
            advice = "the file or its folder is read-only: choose another place with --table"
        elif any(sign in text for sign in ("malformed", "not a database", "UTF-8", "corrupt")):
            advice = f"the file is damaged: {RESTORE}"
        elif "unable to open" in text:
            advice = (
                "the file or its folder does not exist or may not be written, or the disk is full"
            )
        elif "interrupted" in text:
            advice = (
                "this takes more steps than a sound file of its size needs: the file is damaged, "
                "or --where asks for too much"
            )
        else:
            raise TableError(f"{name}: {error}") from error
        raise TableError(f"{name}: {text}: {advice}") from error


def check_file(path: Path) -> None:
    """Refuse what is not an SQLite file, or is shorter than its header says.

    Raises:
        TableError: says what the file is instead, and what to do.
    """
    if path.is_dir():
        raise TableError(f"{path} is a folder, not a table")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise TableError(f"{path} is a pipe, device or socket, not a table")
        size = status.st_size
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError as error:
        beside = [str(path.with_name(other.name)) for other in path.parent.glob(f"*{path.suffix}")]
        meant = nearest_name(str(path), beside).rstrip()
        raise TableError(f"no table {path}; {meant or _making(path)}") from error
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}") from error
    if not header:
        raise unfinished(path, "is empty")
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
            f"{RESTORE}"
        )


def unfinished(path: Path, what: str) -> TableError:
    """The refusal of a file that a killed creation of an earlier version left behind."""
    return TableError(
        f"{path} {what}, not a table: its creation was cut short, and nothing was stored in it\n"
        f"remove it and repeat the command: {shlex.join(['rm', '--', str(path)])}"
    )


def connect_new(path: Path) -> sqlite3.Connection:
    """A connection to a file that it makes, and that no other process sees yet."""
    path.touch()
    connection = _connected(path, "mode=rw")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def connect_writable(path: Path, timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """A connection that writes through a log, so that readers never wait.

    What is committed is flushed to the disk before anything goes on: it outlives a power failure.
    """
    connection = _connected(path, "mode=rw", timeout_s)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_readonly(path: Path) -> sqlite3.Connection:
    """Read-only, with what a log beside the file holds.

    Where the folder cannot hold the log's index, a file without a log is read as it is, one with
    a log through a copy.

    Raises:
        TableError: a log that another process goes on writing.
    """
    connection = _connected(path, "mode=ro")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection
    except sqlite3.OperationalError as error:
        connection.close()
        if not ("unable to open" in str(error) or "readonly" in str(error)):
            raise
    except BaseException:
        connection.close()
        raise
    if _sizes(path)[1:] == (None,) * len(_LOGS):
        return _connected(path, "mode=ro&immutable=1")
    return _copy_with_log(path)


def _connected(path: Path, mode: str, timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """A connection to a file by its whole path, so that no name is taken for a URI.

    No function that could do harm is called from the file's own views, triggers and constraints.
    """
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=timeout_s)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def in_memory(connection: sqlite3.Connection) -> sqlite3.Connection:
    """A copy of a whole file in memory; the connection to the file is closed."""
    with closing(connection):
        copy = sqlite3.connect(":memory:")
        connection.backup(copy)
    copy.execute("PRAGMA trusted_schema = OFF")
    return copy


def _sizes(path: Path) -> tuple[tuple[int, int] | None, ...]:
    """(bytes, time of the last change) of the file and of its logs, None of what is not there."""
    found: list[tuple[int, int] | None] = []
    for ending in ("", *_LOGS):
        try:
            status = os.stat(f"{path}{ending}")
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((status.st_size, status.st_mtime_ns) if status.st_size else None)
    return tuple(found)


def _copy_with_log(path: Path) -> sqlite3.Connection:
    """The file with its log folded in, in memory."""
    with tempfile.TemporaryDirectory(prefix="latlut-") as folder:
        copy, before = Path(folder) / path.name, _sizes(path)
        try:
            for ending, size in zip(("", *_LOGS), before, strict=True):
                if size is not None:
                    shutil.copyfile(f"{path}{ending}", f"{copy}{ending}")
        except OSError as error:
            raise TableError(f"{path} cannot be copied to read its log: {error}") from error
        if _sizes(path) != before:
            raise TableError(
                f"{path} lies in a folder that is read-only here, and another process is writing "
                "it: read it where it is written, or when the other process has ended"
            )
        return in_memory(_connected(copy, "mode=rw"))


@contextmanager
def bounded_reading(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Ends, with ``interrupted``, what takes more steps than reading such a file can need."""
    size_bytes = sum(size[0] for size in _sizes(path) if size is not None)
    left = (_STEPS + _STEPS_PER_BYTE * size_bytes) // _STEPS_PER_TICK

    def tick() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    connection.set_progress_handler(tick, _STEPS_PER_TICK)
    try:
        yield
    finally:
        with suppress(sqlite3.ProgrammingError):  # closed before what it was read for was done
            connection.set_progress_handler(None, 0)
