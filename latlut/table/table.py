"""LatencyTable: all entries of one identity, one SQLite file.

Reading needs no lock and never waits for a sweep that writes the same file (write-ahead log);
writing happens in short immediate transactions, so a process that is killed at any instant
leaves a file without half-written entries. What the file is, who made it and with what is
checked when it is opened.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlite_utils import Database

from latlut.errors import IdentityError, MissingEntryError, TableError
from latlut.files.writing import folder_beside, place_new, remove_abandoned
from latlut.operators.registry import check_options
from latlut.opspec import OpSpec
from latlut.shell import command
from latlut.table.content import READ_WHEN_OPENED, READ_WITH_ENTRIES, refuse_wrong
from latlut.table.entry import Entry
from latlut.table.file_schema import applied_steps, refuse_foreign, refuse_incomplete
from latlut.table.identity import Identity
from latlut.table.killed import killed_runs, record_killed
from latlut.table.nearest import nearest_key
from latlut.table.schema import APPLICATION_ID, migrations
from latlut.table.storage import (
    BUSY_TIMEOUT_S,
    RESTORE,
    bounded_reading,
    check_file,
    connect_new,
    connect_readonly,
    connect_writable,
    copying,
    find_table,
    in_memory,
    is_shipped,
    refuse_shipped,
    shown_path,
    storage_errors,
    unfinished,
)
from latlut.table.writing import insert
from latlut.timestamps import now_text

if TYPE_CHECKING:
    import pandas

_ENTRY_COLUMNS = (
    "key, latency_ms, ci_low_ms, ci_high_ms, own_error, passes, n, roofline_ms, warnings,"
    " builds, build_error, build_sd, pass_sd, coalesce(own_error_ms, own_error * latency_ms),"
    " host_share, launch, devices, device_error, device_sd, predicted_from"
)
_ENTRIES = f"SELECT {_ENTRY_COLUMNS} FROM entries JOIN op_specs ON op_specs.id = op_spec_id"

#: Keys that one statement asks for; SQLite takes 999 everywhere.
_AT_ONCE = 500
#: How long a reader waits for others before it leaves a killed run recorded as running.
_BRIEFLY_S = 1.0
#: How a transaction begins, ends and is undone, and a part of one.
_WHOLE = ("BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",))
_PART = ("SAVEPOINT part", "RELEASE part", ("ROLLBACK TO part", "RELEASE part"))


class LatencyTable:
    """A latency table, open for reading or writing. A context manager.

    Use ``LatencyTable.open(path)`` to read and ``LatencyTable.create(path, identity)`` to make
    one or continue one of the same identity.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        *,
        is_writable: bool,
        file: Path | None = None,
    ) -> None:
        self.path = path
        self.is_writable = is_writable
        self.db = Database(connection, execute_plugins=False)
        self._file = file or path

    @classmethod
    def open(cls, path: str | Path, *, is_writable: bool = False) -> LatencyTable:
        """The table in ``path`` (or of that bare name, see ``find_table``).

        Runs whose process was killed are recorded as such, and what killed processes left of
        unfinished files beside the table is removed, as far as the folder may be written.

        Raises:
            TableError: no such file, not a latlut table, truncated, damaged, of a newer version,
                or with views and triggers that latlut did not make; or one that ships with latlut,
                to be written.
            IdentityError: its identity is none.
        """
        found = find_table(path)
        check_file(found)
        if is_writable:
            refuse_shipped(found)
        remove_abandoned(found.parent)
        table = cls._opened(found, is_writable)
        with storage_errors(found):
            killed = killed_runs(table.db)
        if killed and not is_writable:
            table.close()
            with suppress(TableError), closing(cls._opened(found, True, _BRIEFLY_S)):
                pass
            table = cls._opened(found, False)
        return table

    @classmethod
    def _opened(
        cls, path: Path, is_writable: bool, timeout_s: float = BUSY_TIMEOUT_S
    ) -> LatencyTable:
        with storage_errors(path):
            if is_writable:
                connection = connect_writable(path, timeout_s)
            else:
                connection = connect_readonly(path)
            table = cls(path, connection, is_writable=is_writable)
            try:
                table._check_content()
                if is_writable and killed_runs(table.db):
                    with table.writing() as db:
                        record_killed(db)
            except BaseException:
                table.close()
                raise
        return table

    @classmethod
    def create(
        cls,
        path: str | Path,
        identity: Identity,
        fill: Callable[[LatencyTable], None] | None = None,
    ) -> LatencyTable:
        """A writable table of that identity: made if the file is absent, continued if it fits.

        A new one is made beside its place and put there complete, never in place of another: of
        two processes that begin together one makes it, and the other continues it.

        Args:
            path: of the file.
            identity: of all its entries.
            fill: writes into the table, all of it or nothing; where it raises, a new table is
                not made.

        Raises:
            IdentityError: the file holds another identity; names the fields that differ.
            TableError: the file is something else, or cannot be written; says so where it was
                made, but cannot be opened afterwards.
        """
        path = Path(path)
        is_made = False
        if not path.exists():
            with suppress(FileExistsError):  # another process has just made it
                cls._make(path, identity, fill)
                is_made = True
        try:
            table = cls.open(path, is_writable=True)
        except TableError as error:
            if not is_made:
                raise
            raise TableError(
                f"{path} is made, with all that belongs into it; it cannot be opened again: {error}"
            ) from error
        try:
            table.check_identity(identity)
            if fill is not None and not is_made:
                with table.writing():
                    fill(table)
        except BaseException:
            table.close()
            raise
        return table

    @classmethod
    def _make(
        cls, path: Path, identity: Identity, fill: Callable[[LatencyTable], None] | None
    ) -> None:
        """Make a new table, whole or not at all.

        Raises:
            FileExistsError: another is there by now.
        """
        place = Path(os.path.realpath(path))  # a link to a file that is not there yet
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TableError(f"{path}: cannot make its folder: {error.strerror}") from error
        try:
            with folder_beside(place) as folder, storage_errors(path):
                file = folder / place.name
                with (
                    closing(cls(path, connect_new(file), is_writable=True, file=file)) as table,
                    table.writing() as db,
                ):
                    migrations.apply(db)
                    insert(db, "identity", id=1, **identity.to_dict(), created_at=now_text())
                    if fill is not None:
                        fill(table)
                place_new(file, place)
        except FileExistsError:
            raise
        except OSError as error:
            raise TableError(
                f"{path} cannot be made: {error.strerror}: nothing was written; free space, or "
                "choose another place with --table"
            ) from error

    def _check_content(self) -> None:
        """Refuse what is no table of this version, or of one before it."""
        with self.reading() as db:
            is_older = self._is_of_older_schema(db.conn)
        if is_older and self.is_writable:
            with self.writing() as db:  # waits for another that does the same; then nothing is left
                migrations.apply(db)
        elif is_older:  # a copy is brought up to date instead
            self.db = Database(in_memory(self.db.conn), execute_plugins=False)
            migrations.apply(self.db)
        with self.reading() as db:
            refuse_foreign(db.conn, self.path)
            # Views and triggers are latlut's own now; SQLite calls JSON functions in them unsafe.
            db.conn.execute("PRAGMA trusted_schema = ON")
            refuse_incomplete(db.conn, self.path)
            refuse_wrong(db.conn, self.path, READ_WHEN_OPENED)
            _ = self.identity

    def _is_of_older_schema(self, connection: sqlite3.Connection) -> bool:
        application_id = connection.execute("PRAGMA application_id").fetchone()[0]
        if application_id != APPLICATION_ID:
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise unfinished(self.path, "holds no tables")
            raise TableError(f"{self.title}: an SQLite file, but not a latlut table")
        refuse_foreign(connection, self.path)
        applied = applied_steps(connection, self.path)
        known = {migration.name for migration in migrations._migrations}
        if newer := sorted(applied - known):
            raise TableError(
                f"{self.title}: made by a newer latlut (schema steps {', '.join(newer)} are "
                "unknown here): update latlut, or export the table there to CSV and import it here"
            )
        return applied != known

    def __enter__(self) -> LatencyTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a writer folds the write-ahead log back so that one file remains."""
        if self.is_writable:
            try:
                self.db.conn.execute("PRAGMA busy_timeout = 100")
                self.db.disable_wal()
            except sqlite3.Error:
                pass  # another process has it open: the log stays, SQLite reads both
        self.db.close()

    @contextmanager
    def writing(self) -> Iterator[Database]:
        """One immediate transaction; all of it is written or nothing.

        Inside another one it is a part of that, which may fail alone.

        Raises:
            TableError: the table is read-only, the disk is full, ...
        """
        if not self.is_writable:
            raise TableError(f"{self.title} was opened for reading")
        connection = self.db.conn
        is_part = connection.in_transaction
        begin, end, undo = _PART if is_part else _WHOLE
        with storage_errors(self.path):
            try:  # around BEGIN as well: Ctrl-C while it waits for another writer comes after it
                connection.execute(begin)
                yield self.db
                connection.execute(end)
            except BaseException:
                if connection.in_transaction:  # SQLite itself ends some, of a full disk
                    for statement in undo:
                        connection.execute(statement)
                raise
            finally:
                self.__dict__.pop("_entries", None)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Reading sees the table as it is now, whatever other processes write meanwhile."""
        with storage_errors(self.path):
            self.db.conn.execute("BEGIN")
            self.db.conn.execute("SELECT count(*) FROM identity").fetchone()
        self.__dict__.pop("_entries", None)
        try:
            yield
        finally:
            self.db.conn.execute("ROLLBACK")

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
        """The rows of a query, as dictionaries."""
        return list(self.each_row(sql, parameters))

    def each_row(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[dict[str, Any]]:
        """The same one by one, for queries of many rows."""
        with self.reading() as db:
            yield from db.query(sql, list(parameters))

    def tuples(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The same as tuples, for queries of many rows."""
        with self.reading() as db:
            found: list[tuple[Any, ...]] = db.execute(sql, list(parameters)).fetchall()
        return found

    @contextmanager
    def reading(self) -> Iterator[Database]:
        """The database, for what is read while the context lasts.

        Raises:
            TableError: the file is damaged, or what is asked of it takes too much.
        """
        with storage_errors(self.path), bounded_reading(self.db.conn, self._file):
            yield self.db

    @contextmanager
    def reading_beside(self) -> Iterator[Database]:
        """As ``reading``, by a connection of its own, for another thread; no snapshot holds it."""
        with (
            storage_errors(self.path),
            closing(connect_readonly(self._file)) as connection,
            bounded_reading(connection, self._file),
        ):
            yield Database(connection, execute_plugins=False)

    def __repr__(self) -> str:
        try:
            own = f"{len(self)} entries, {self.identity}"
        except (sqlite3.Error, TableError):
            own = "closed"
        return f"<LatencyTable {self.title}: {own}>"

    def _repr_html_(self) -> str:
        try:
            shown = self.frame().to_html(index=False, max_rows=10)
        except (sqlite3.Error, TableError):
            shown = ""
        return f"<p>{escape(repr(self)[1:-1])}</p>{shown}"

    @property
    def title(self) -> str:
        """What people call it: its file, or the name of a table that ships with latlut."""
        return shown_path(self.path)

    @property
    def size_bytes(self) -> int:
        """Bytes of the file on disk."""
        return self._file.stat().st_size

    @cached_property
    def identity(self) -> Identity:
        """What all entries of this table have in common."""
        rows = self.rows("SELECT * FROM identity")
        if len(rows) != 1:
            raise TableError(f"{self.title}: has {len(rows)} identities, expected one; {RESTORE}")
        values = {key: value for key, value in rows[0].items() if key not in ("id", "created_at")}
        try:
            return Identity.from_dict(values)
        except IdentityError as error:
            raise IdentityError(f"{self.title}: {error}") from error

    def check_identity(self, other: Identity) -> None:
        """Refuse rows of another identity.

        Raises:
            IdentityError: names each field that differs.
        """
        if differences := self.identity.differences(other):
            raise IdentityError(
                f"{self.title} holds latencies of another identity (here: in the table, "
                "there: asked for now)\n  " + "\n  ".join(differences) + "\n"
                "latencies of different identities do not share a table: choose another file "
                "with --table"
            )

    @cached_property
    def _entries(self) -> dict[str, tuple[Any, ...] | None]:
        """Key -> the fields of its ``Entry``, of those that were asked for; None has none."""
        with self.reading() as db:
            refuse_wrong(db.conn, self.path, READ_WITH_ENTRIES)
        return {}

    def _fields(self, spec: OpSpec) -> tuple[Any, ...] | None:
        """The fields of an op spec's entry, read from the file once."""
        entries, key = self._entries, spec.key
        if key not in entries:
            with self.reading() as db:
                entries[key] = db.execute(f"{_ENTRIES} WHERE key = ?", [key]).fetchone()
        return entries[key]

    def __len__(self) -> int:
        return int(self.rows("SELECT count(*) AS n FROM entries")[0]["n"])

    @property
    def predicted_count(self) -> int:
        """How many of its entries were predicted, not measured."""
        sql = "SELECT count(*) AS n FROM entries WHERE predicted_from IS NOT NULL"
        return int(self.rows(sql)[0]["n"])

    def __contains__(self, spec: OpSpec | str) -> bool:
        return self._fields(_as_spec(spec)) is not None

    def __iter__(self) -> Iterator[Entry]:
        with self.reading() as db:
            refuse_wrong(db.conn, self.path, READ_WITH_ENTRIES)
            for fields in db.execute(f"{_ENTRIES} ORDER BY op_spec_id"):
                yield Entry(*fields)

    def lookup(self, spec: OpSpec | str) -> Entry:
        """The entry of an op spec, which may be given as text.

        Raises:
            MissingEntryError: names the nearest measured one and the command that adds it.
            SpecError: a text that is no op spec, or an option that its operator does not have.
        """
        spec = _as_spec(spec)
        fields = self._fields(spec)
        if fields is None:
            check_options(spec)
            raise MissingEntryError(self.missing_message(spec))
        return Entry(*fields)

    def held(self, specs: Iterable[OpSpec]) -> list[Entry]:
        """The entries of those of some op specs that have one, in their order.

        Quick for many: ``in`` and ``lookup`` ask the file once for each.
        """
        known, keys = self._entries, [spec.key for spec in specs]
        unknown = [key for key in dict.fromkeys(keys) if key not in known]
        with self.reading() as db:
            for first in range(0, len(unknown), _AT_ONCE):
                asked = unknown[first : first + _AT_ONCE]
                rows = db.execute(f"{_ENTRIES} WHERE key IN ({', '.join('?' * len(asked))})", asked)
                known.update(dict.fromkeys(asked) | {fields[0]: fields for fields in rows})
        return [Entry(*fields) for key in keys if (fields := known[key]) is not None]

    def latencies_ms(self, specs: Sequence[OpSpec]) -> np.ndarray:
        """The latencies of many op specs: (len(specs),) float64, milliseconds.

        Raises:
            MissingEntryError: the first that is not there.
        """
        return np.fromiter((self.lookup(spec).latency_ms for spec in specs), np.float64, len(specs))

    def command(self, name: str, *words: object) -> str:
        """The command ``name`` on this table, ready to be pasted; on a copy of a shipped one.

        Where entries of latlut cannot be added (``Identity.is_of_this_protocol``) it names the
        device instead of the table.

        Args:
            name: of a command that takes ``--table`` and ``--operators``, and writes the table.
            words: what else it is given.
        """
        own = [word for module in self.own_modules for word in ("--operators", module)]
        if not self.identity.is_of_this_protocol:
            target = self.identity.target
            device = ["--cpu"] if target == "cpu" else ["--gpu", target]
            return command(name, *device, *words, *own)
        if not is_shipped(self.path):
            return command(name, "--table", self.path, *words, *own)
        copy_command, copy = copying(self.path)
        return f"{copy_command} && {command(name, '--table', copy, *words, *own)}"

    @property
    def own_modules(self) -> tuple[str, ...]:
        """What ``--operators`` named when the table was measured."""
        stored = self.fact("own_modules")
        return tuple(json.loads(stored)) if stored else ()

    def missing_message(self, spec: OpSpec) -> str:
        """What to tell someone whose op spec has no entry."""
        nearest = self.nearest(spec)
        hint = f"nearest measured: {nearest}\n" if nearest else "the table has no such operator\n"
        adding = self.adding(self.command("profile", "--op", spec))
        return f"no entry for {spec} in {self.title}\n{hint}{adding}"

    def adding(self, profiling: str, count: int = 1) -> str:
        """The line with the command that measures what the table lacks.

        Args:
            profiling: that command, see ``command``.
            count: of the missing entries.
        """
        them, device = "it" if count == 1 else "them", self.identity.device_model
        if not self.identity.is_of_this_protocol:
            return (
                "latlut cannot add to these entries, which were measured otherwise; measure a "
                f"table of your own, on {device}, with: {profiling}"
            )
        where = f", on its device ({device})," if self.fact("source") else ""
        return f"add {them}{where} with: {profiling}"

    def nearest(self, spec: OpSpec) -> OpSpec | None:
        """The closest measured op spec of the same kind (``table.nearest``)."""
        with self.reading() as db:
            key = nearest_key(db.conn, spec)
        return None if key is None else OpSpec.parse(key)

    def frame(self) -> pandas.DataFrame:
        """All entries with their op specs' columns, one row each, as the view ``latencies``."""
        import pandas

        with self.reading() as db:
            found = db.execute("SELECT * FROM latencies ORDER BY op_spec")
            columns = [column[0] for column in found.description]
            return pandas.DataFrame.from_records(
                found.fetchall(), columns=columns, coerce_float=True
            )

    def fact(self, name: str) -> str | None:
        """A named fact of the table (such as ``shared_error``), None where it is not set."""
        found = self.rows("SELECT value FROM facts WHERE name = ?", [name])
        return str(found[0]["value"]) if found else None

    @property
    def excluded_kinds(self) -> frozenset[str]:
        """Operators that the source of an imported table does not count in networks."""
        return frozenset(filter(None, (self.fact("excluded_kinds") or "").split(",")))

    @property
    def shared_error(self) -> float:
        """Relative 95% half-width of the error that all entries have in common; 0 if unknown."""
        value = self.fact("shared_error")
        return float(value) if value is not None else 0.0


def _as_spec(spec: OpSpec | str) -> OpSpec:
    return OpSpec.parse(spec) if isinstance(spec, str) else spec
