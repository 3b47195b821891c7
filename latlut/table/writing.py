"""Writing rows into the file's SQL tables, each value beside the name of its column.

To be called inside ``LatencyTable.writing``. What is left out gets the column's default; SQLite
keeps NaN as NULL.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlite_utils import Database


def insert(db: Database, name: str, /, **values: object) -> int:
    """Add a row to the SQL table ``name``; its row id."""
    return _insert(db, f"INSERT INTO {name}", values)


def replace(db: Database, name: str, /, **values: object) -> int:
    """The same, in place of a row with the same key if there is one."""
    return _insert(db, f"INSERT OR REPLACE INTO {name}", values)


def update(db: Database, name: str, row_id: int, /, **values: object) -> None:
    """Change columns of the row ``row_id``."""
    changes = ", ".join(f"{column} = ?" for column in values)
    db.execute(f"UPDATE {name} SET {changes} WHERE id = ?", [*values.values(), row_id])


def set_fact(db: Database, name: str, value: str) -> None:
    """Set a named fact of the table."""
    replace(db, "facts", name=name, value=value)


def _insert(db: Database, into: str, values: Mapping[str, object]) -> int:
    marks = ", ".join("?" for _ in values)
    sql = f"{into} ({', '.join(values)}) VALUES ({marks})"
    return int(db.execute(sql, list(values.values())).lastrowid or 0)
