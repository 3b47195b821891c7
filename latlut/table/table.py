"""LatencyTable: all entries of one identity, one SQLite file.

Reading needs no lock and never waits for a sweep that writes the same file (write-ahead log);
writing happens in short immediate transactions, so a process that is killed at any instant
leaves a file without half-written entries. What the file is, who made it and with what is
checked when it is opened.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlite_utils import Database

from latlut.errors import IdentityError, MissingEntryError, TableError
from latlut.opspec import OpSpec
from latlut.shell import command
from latlut.table.identity import Identity
from latlut.table.schema import APPLICATION_ID, migrations
from latlut.table.storage import (
    check_file,
    connect_readonly,
    connect_writable,
    find_table,
    storage_errors,
)
from latlut.table.writing import insert
from latlut.timestamps import now_text

if TYPE_CHECKING:
    import pandas

_ENTRY_COLUMNS = (
    "key, latency_ms, ci_low_ms, ci_high_ms, own_error, passes, n, roofline_ms, warnings,"
    " builds, build_error, build_sd, pass_sd, coalesce(own_error_ms, own_error * latency_ms),"
    " devices, device_error, device_sd"
)


@dataclass(frozen=True)
class Entry:
    """One op spec's measured latency; in a table of differences it may be zero or negative.

    Attributes:
        key: canonical text of the op spec.
        latency_ms, ci_low_ms, ci_high_ms: with its 95% interval, None where unknown: one pass, or
            imported without one.
        own_error: the part of the interval's relative half-width that other entries do not share.
        passes, n: how many passes and samples it rests on.
        roofline_ms: the least that the target's peak figures allow.
        warnings: what to know before using it, joined by "; ".
        builds: how many independent builds of the engine it rests on.
        build_error: the part of ``own_error`` that comes from their number.
        build_sd, pass_sd: relative standard deviations from build to build and from pass to pass
            on one build; None where one build was measured. Of a difference they are relative to
            what it is a difference of (``stats.differences``).
        own_error_ms: ``own_error`` in milliseconds, which also an entry of zero has.
        devices, device_error, device_sd: as of builds, of the devices that it was measured on.
    """

    key: str
    latency_ms: float
    ci_low_ms: float | None
    ci_high_ms: float | None
    own_error: float | None
    passes: int
    n: int
    roofline_ms: float | None
    warnings: str
    builds: int = 1
    build_error: float | None = None
    build_sd: float | None = None
    pass_sd: float | None = None
    own_error_ms: float | None = None
    devices: int = 1
    device_error: float | None = None
    device_sd: float | None = None

    @property
    def is_distinguishable(self) -> bool:
        """Whether zero lies outside the interval; True where there is none."""
        if self.ci_low_ms is None or self.ci_high_ms is None:
            return True
        return not self.ci_low_ms <= 0 <= self.ci_high_ms

    @property
    def ci_percent(self) -> float | None:
        """The interval's half-width in percent of the latency; None where there is no interval,
        or where zero lies in it: nothing is a share of what may be nothing."""
        if self.ci_low_ms is None or self.ci_high_ms is None or not self.is_distinguishable:
            return None
        return 50 * (self.ci_high_ms - self.ci_low_ms) / abs(self.latency_ms)

    @property
    def spec(self) -> OpSpec:
        """The op spec that was measured."""
        return OpSpec.parse(self.key)


class LatencyTable:
    """A latency table, open for reading or writing. A context manager.

    Use ``LatencyTable.open(path)`` to read and ``LatencyTable.create(path, identity)`` to make
    one or continue one of the same identity.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, *, is_writable: bool) -> None:
        self.path = path
        self.is_writable = is_writable
        self.db = Database(connection, execute_plugins=False)

    @classmethod
    def open(cls, path: str | Path, *, is_writable: bool = False) -> LatencyTable:
        """The table in ``path`` (or of that bare name, see ``find_table``).

        Raises:
            TableError: no such file, not a latlut table, truncated, or of a newer version.
        """
        found = find_table(path)
        check_file(found)
        with storage_errors(found):
            if is_writable:
                connection = connect_writable(found)
            else:
                connection = connect_readonly(found)
            table = cls(found, connection, is_writable=is_writable)
            try:
                table._check_content()
            except BaseException:
                table.close()
                raise
        return table

    @classmethod
    def create(cls, path: str | Path, identity: Identity) -> LatencyTable:
        """A writable table of that identity: made if the file is absent, continued if it fits.

        Raises:
            IdentityError: the file holds another identity; names the fields that differ.
            TableError: the file is something else, or cannot be written.
        """
        path = Path(path)
        if path.exists() and path.stat().st_size:
            table = cls.open(path, is_writable=True)
            try:
                table.check_identity(identity)
            except BaseException:
                table.close()
                raise
            return table
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TableError(f"{path}: cannot make its folder: {error.strerror}") from error
        with storage_errors(path):
            table = cls(path, connect_writable(path), is_writable=True)
            with table.db.atomic():
                migrations.apply(table.db)
                insert(table.db, "identity", id=1, **identity.to_dict(), created_at=now_text())
        return table

    def _check_content(self) -> None:
        application_id = self.db.execute("PRAGMA application_id").fetchone()[0]
        if application_id != APPLICATION_ID:
            raise TableError(f"{self.path}: an SQLite file, but not a latlut table")
        applied = {migration.name for migration in migrations.applied(self.db)}
        known = {migration.name for migration in migrations._migrations}
        if newer := sorted(applied - known):
            raise TableError(
                f"{self.path}: made by a newer latlut (schema steps {', '.join(newer)} are unknown "
                "here): update latlut, or export the table there to CSV and import it here"
            )
        if applied != known:
            if not self.is_writable:
                self._read_from_a_copy()
            migrations.apply(self.db)

    def _read_from_a_copy(self) -> None:
        """Read an older file through a copy in memory, which is brought up to date instead."""
        copy = sqlite3.connect(":memory:")
        self.db.conn.backup(copy)
        self.db.close()
        self.db = Database(copy, execute_plugins=False)

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

        Raises:
            TableError: the table is read-only, the disk is full, ...
        """
        if not self.is_writable:
            raise TableError(f"{self.path} was opened for reading")
        with storage_errors(self.path):
            try:  # around BEGIN as well: Ctrl-C while it waits for another writer comes after it
                self.db.conn.execute("BEGIN IMMEDIATE")
                yield self.db
                self.db.conn.execute("COMMIT")
            except BaseException:
                if self.db.conn.in_transaction:
                    self.db.conn.execute("ROLLBACK")
                raise
        self.__dict__.pop("_entries", None)

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
        """The rows of a query, as dictionaries."""
        with storage_errors(self.path):
            return list(self.db.query(sql, list(parameters)))

    def damage(self) -> str:
        """What SQLite finds wrong with the file, empty if nothing."""
        found = str(self.rows("PRAGMA integrity_check")[0]["integrity_check"])
        return "" if found == "ok" else found

    @cached_property
    def identity(self) -> Identity:
        """What all entries of this table have in common."""
        (row,) = self.rows("SELECT * FROM identity") or [{}]
        values = {key: row[key] for key in row if key not in ("id", "created_at")}
        return Identity.from_dict(values)

    def check_identity(self, other: Identity) -> None:
        """Refuse rows of another identity.

        Raises:
            IdentityError: names each field that differs.
        """
        if differences := self.identity.differences(other):
            raise IdentityError(
                f"{self.path} holds latencies of another identity (here: in the table, "
                "there: asked for now)\n  " + "\n  ".join(differences) + "\n"
                "latencies of different identities do not share a table: choose another file "
                "with --table"
            )

    @cached_property
    def _entries(self) -> dict[str, tuple[Any, ...]]:
        """Key -> the fields of its ``Entry``, which is made when it is asked for."""
        with storage_errors(self.path):
            rows = self.db.execute(
                f"SELECT {_ENTRY_COLUMNS} FROM entries JOIN op_specs ON op_specs.id = op_spec_id"
            ).fetchall()
        return {row[0]: row for row in rows}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, spec: OpSpec) -> bool:
        return spec.key in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return (Entry(*fields) for fields in self._entries.values())

    def lookup(self, spec: OpSpec) -> Entry:
        """The op spec's entry.

        Raises:
            MissingEntryError: names the nearest measured one and the command that adds it.
        """
        fields = self._entries.get(spec.key)
        if fields is None:
            raise MissingEntryError(self.missing_message(spec))
        return Entry(*fields)

    def latencies_ms(self, specs: Sequence[OpSpec]) -> np.ndarray:
        """The latencies of many op specs: (len(specs),) float64, milliseconds.

        Raises:
            MissingEntryError: the first that is not there.
        """
        entries = self._entries
        try:
            return np.fromiter((entries[spec.key][1] for spec in specs), np.float64, len(specs))
        except KeyError:
            missing = next(spec for spec in specs if spec.key not in entries)
            raise MissingEntryError(self.missing_message(missing)) from None

    def command(self, name: str, *words: object) -> str:
        """The command ``name`` on this table, ready to be pasted.

        Args:
            name: of a command that takes ``--table`` and ``--operators``.
            words: what else it is given.
        """
        own = [word for module in self.own_modules for word in ("--operators", module)]
        return command(name, "--table", self.path, *words, *own)

    @property
    def own_modules(self) -> tuple[str, ...]:
        """What ``--operators`` named when the table was measured."""
        stored = self.fact("own_modules")
        return tuple(json.loads(stored)) if stored else ()

    def missing_message(self, spec: OpSpec) -> str:
        """What to tell someone whose op spec has no entry."""
        nearest = self.nearest(spec)
        hint = f"nearest measured: {nearest}\n" if nearest else "the table has no such operator\n"
        return (
            f"no entry for {spec} in {self.path}\n{hint}"
            f"add it with: {self.command('profile', '--op', spec)}"
        )

    def nearest(self, spec: OpSpec) -> OpSpec | None:
        """The measured op spec of the same kind whose shapes and options are closest in value.

        Numbers are compared in log scale; an option that is no number, or that one of the two does
        not name, counts as much as a factor of two.
        """
        asked = dict(spec.options)

        def distance(other: OpSpec) -> float:
            pairs = [
                (spec.in_channels, other.in_channels),
                (spec.out_channels, other.out_channels),
                (spec.inputs[-1][1], other.inputs[-1][1]),
                (spec.inputs[-1][2], other.inputs[-1][2]),
                (spec.batch, other.batch),
                (spec.stride, other.stride),
            ]
            away = sum(abs(np.log2(a / b)) for a, b in pairs)
            options = dict(other.options)
            names = asked.keys() | options.keys()
            return float(away) + sum(_apart(asked.get(n), options.get(n)) for n in names)

        same_kind = [entry.spec for entry in self if entry.key.startswith(f"{spec.kind} ")]
        return min(same_kind, key=distance, default=None)

    def frame(self) -> pandas.DataFrame:
        """All entries with their op specs' columns, one row each, as the view ``latencies``."""
        import pandas

        with storage_errors(self.path):
            return pandas.read_sql_query("SELECT * FROM latencies ORDER BY op_spec", self.db.conn)

    def fact(self, name: str) -> str | None:
        """A named fact of the table (such as ``shared_error``), None where it is not set."""
        found = self.rows("SELECT value FROM facts WHERE name = ?", [name])
        return str(found[0]["value"]) if found else None

    @property
    def shared_error(self) -> float:
        """Relative 95% half-width of the error that all entries have in common; 0 if unknown."""
        value = self.fact("shared_error")
        return float(value) if value is not None else 0.0


def _apart(first: object, second: object) -> float:
    """How far two values of an option are apart, in factors of two."""
    if first == second:
        return 0.0
    numbers = [
        float(value) for value in (first, second)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]  # fmt: skip
    if len(numbers) == 2 and min(numbers) > 0:
        return abs(float(np.log2(numbers[0] / numbers[1])))
    return 1.0
