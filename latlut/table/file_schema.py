"""What a table's file is made of, compared with what the migrations make.

A file from elsewhere may hold triggers that change what is written, and views that never end under
the names of ours. None of them is executed: a file that has one is refused by what it has.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlite_utils import Database

from latlut.errors import TableError
from latlut.table.schema import migrations

#: Steps that make views anew; files without them may hold earlier ones.
_REMADE = {
    "m004_differences": {"run_log"},
    "m008_devices": {"latencies", "suspects", "readings"},
    "m009_predictions": {"latencies", "suspects"},
    "m011_disturbed": {"latencies", "suspects", "readings"},
}


@dataclass(frozen=True)
class FileSchema:
    """Views and triggers by name, with their SQL; tables with their columns."""

    texts: Mapping[tuple[str, str], str]
    """(type, name) -> SQL, blanks aside."""
    columns: Mapping[str, frozenset[tuple[object, ...]]]
    """Table -> its columns as ``PRAGMA table_xinfo`` gives them."""


def own_schema() -> FileSchema:
    """What all migrations make."""
    return _made_by(tuple(step.name for step in migrations._migrations))


@cache
def _made_by(steps: tuple[str, ...]) -> FileSchema:
    db = Database(memory=True, execute_plugins=False)
    migrations.apply(db)
    tables = [name for kind, name, _ in _objects(db.conn) if kind == "table"]
    found = FileSchema(_texts(db.conn), {name: _columns(db.conn, name) for name in tables})
    db.close()
    return found


def refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse triggers and views that latlut did not make, before anything can run them.

    Raises:
        TableError: names the first.
    """
    own = own_schema()
    for kind, name, _ in _objects(connection):
        if kind == "view" and (name in own.columns or name == migrations.migrations_table):
            raise _refusal(path, f"{name} is a view where latlut has a table")
    applied = applied_steps(connection, path)
    exempt = {name for step, views in _REMADE.items() if step not in applied for name in views}
    for (kind, name), text in _texts(connection).items():
        if kind == "view" and name in exempt:
            continue
        if (kind, name) not in own.texts:
            raise _refusal(path, f"the {kind} {name} is none of latlut's")
        if text != own.texts[kind, name]:
            raise _refusal(path, f"the {kind} {name} is not the one that latlut makes")


def applied_steps(connection: sqlite3.Connection, path: Path) -> set[str]:
    """Names of the migrations that a file has behind it.

    Raises:
        TableError: the file does not say so as ``sqlite_utils`` writes it.
    """
    kept = migrations.migrations_table
    columns = {str(name) for name, *_ in _columns(connection, kept)}
    if not columns:
        return set()
    if missing := {"migration_set", "name", "applied_at"} - columns:
        raise _refusal(path, f"table {kept}: column {min(missing)} is missing")
    rows = connection.execute(f"SELECT name FROM {kept} WHERE migration_set = ?", [migrations.name])
    names = {row[0] for row in rows}
    if not all(isinstance(name, str) for name in names):
        raise _refusal(path, f"table {kept}: a name that is no text")
    return names


def refuse_incomplete(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file of this version's schema that lacks a view, or has other columns.

    A trigger that is missing does no harm to who reads: the rows are looked at themselves.

    Raises:
        TableError: names the part.
    """
    own = own_schema()
    if views := [name for kind, name in missing_texts(connection) if kind == "view"]:
        raise _refusal(path, f"the view {views[0]} is missing")
    for name, columns in own.columns.items():
        if other := _columns(connection, name) ^ columns:
            raise _refusal(path, f"table {name}: column {min(str(c[0]) for c in other)} differs")


def missing_texts(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """(type, name) of the views and triggers that a file of this version's schema lacks."""
    return sorted(own_schema().texts.keys() - _texts(connection).keys())


def _refusal(path: Path, what: str) -> TableError:
    return TableError(
        f"{path}: {what}: the file is damaged, or somebody has changed it\n"
        "restore a copy, or remove what is not latlut's with another SQLite tool"
    )


def _objects(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    return [(str(kind), str(name), str(sql)) for kind, name, sql in rows]


def _texts(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    return {
        (kind, name): " ".join(sql.split())
        for kind, name, sql in _objects(connection)
        if kind in ("view", "trigger")
    }


def _columns(connection: sqlite3.Connection, table: str) -> frozenset[tuple[object, ...]]:
    """(name, type, is not NULL, place in the key, kind of column) of each."""
    rows = connection.execute(f"PRAGMA table_xinfo({table})").fetchall()
    return frozenset((row[1], row[2], row[3], row[5], row[6]) for row in rows)
