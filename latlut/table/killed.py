"""Runs that nobody ended: their process was killed, or the machine lost its power."""

from __future__ import annotations

import json

from sqlite_utils import Database

from latlut.machine.provenance import is_process_gone
from latlut.table.writing import update


def killed_runs(db: Database) -> list[int]:
    """Ids of the runs that are recorded as running, and whose process has surely ended.

    A run's process is the one of its environment, or that of ``settings["driver"]`` where another
    one than the measuring process writes the table. An import is one transaction, so nobody sees
    one running; one that is was left by an earlier version that was killed.
    """
    rows = db.execute(
        "SELECT id, kind, coalesce(json_extract(settings, '$.driver'), environment) FROM runs"
        " WHERE status = 'running'"
    ).fetchall()
    return [
        number
        for number, kind, environment in rows
        if kind == "import" or is_process_gone(json.loads(environment))
    ]


def record_killed(db: Database) -> None:
    """Record them as ``killed``; to be called inside ``LatencyTable.writing``."""
    for number in killed_runs(db):
        update(db, "runs", number, status="killed")
