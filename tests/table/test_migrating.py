"""An old table is brought up to date in one step, whoever else does so, whatever interrupts it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest
from checkout import ROOT
from old_tables import make_old_table

from latlut.errors import TableError
from latlut.table.identity import Identity
from latlut.table.schema import migrations
from latlut.table.table import LatencyTable

IDENTITY = Identity("cpu", "x", "e", "1")
KEYS = [f"conv 4->4 stride 1 at 8x{8 + row}" for row in range(20)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_old_table(tmp_path / "old.db", IDENTITY, KEYS)
    return tmp_path / "old.db"


def steps(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name FROM _sqlite_migrations ORDER BY id").fetchall()
    return [name for (name,) in rows]


def latencies(path: Path) -> dict[str, float]:
    with LatencyTable.open(path) as table:
        assert table.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        assert table.rows("SELECT count(*) AS n FROM measurements") == [{"n": 2 * len(KEYS)}]
        return {entry.key: entry.latency_ms for entry in table}


EXPECTED = {key: 1.0 + number for number, key in enumerate(KEYS)}
ALL_STEPS = [step.name for step in migrations._migrations]


def test_two_processes_bring_one_table_up_to_date(path: Path) -> None:
    """Both have found it old before either changes it, and both go on to write."""
    program = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from latlut.table import table as tables
        from latlut.table.schema import migrations
        from latlut.table.table import LatencyTable
        import latlut.table.file_schema as s; s.own_schema()

        found_old = LatencyTable._is_of_older_schema
        def wait(table, connection):
            is_older = found_old(table, connection)
            print("old" if is_older else "new", flush=True); sys.stdin.readline()
            return is_older
        LatencyTable._is_of_older_schema = wait
        with LatencyTable.open(sys.argv[2], is_writable=True) as table:
            with table.writing() as db:
                db.execute("INSERT INTO facts VALUES (?, 'there')", [sys.argv[3]])
        print("written")
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(ROOT), str(path)]
    started = [
        subprocess.Popen(
            [*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for name in ("first", "second")
    ]  # fmt: skip
    for process in started:
        assert process.stdout is not None and process.stdout.readline() == "old\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        output, errors = process.communicate(timeout=120)
        assert (process.returncode, output) == (0, "written\n"), errors
    assert steps(path) == ALL_STEPS
    assert latencies(path) == EXPECTED
    with LatencyTable.open(path) as table:
        assert (table.fact("first"), table.fact("second")) == ("there", "there")


def test_a_step_that_fails_undoes_those_before_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = steps(path)
    monkeypatch.setattr(migrations, "_migrations", list(migrations._migrations))

    @migrations()
    def m999_fails(db) -> None:
        if db.execute("PRAGMA database_list").fetchone()[2]:  # the file, not the model of it
            raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(TableError, match="disk is full"):
        LatencyTable.open(path, is_writable=True)
    assert steps(path) == before
    monkeypatch.undo()
    with LatencyTable.open(path, is_writable=True):
        pass
    assert steps(path) == ALL_STEPS and latencies(path) == EXPECTED
