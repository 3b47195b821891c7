"""Tables from elsewhere: nothing in them is executed, and what is wrong in them is named."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from latlut.cli import main
from latlut.errors import LatlutError, TableError
from latlut.table.content import RULES
from latlut.table.examination import faults
from latlut.table.file_schema import own_schema
from latlut.table.merging import merge
from latlut.table.samples import MOST_SAMPLES, pack_samples
from latlut.table.table import LatencyTable
from latlut.validation.verdict import check


def _spoilt(path: Path, *statements: str, values: tuple[object, ...] = ()) -> Path:
    """The table without what would refuse the statements, after them."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys = OFF")
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    known = triggers.fetchall()
    for name, _ in known:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement, values if "?" in statement else ())
    for _, sql in known:
        connection.execute(sql)
    connection.commit()
    connection.close()
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("entries SET latency_ms = -1", r"entries row 1 \(conv .*\): latency_ms is -1"),
        ("entries SET latency_ms = 0", "latency_ms is 0"),
        ("entries SET latency_ms = 9e999", "latency_ms is .*[Ii]nf"),
        ("entries SET latency_ms = 5e-324", "latency_ms is "),
        ("entries SET latency_ms = 'fast'", "latency_ms is 'fast'"),
        ("entries SET latency_ms = x'00'", "latency_ms is X'00'"),
        ("entries SET ci_low_ms = ci_high_ms, ci_high_ms = ci_low_ms", "at most ci_high_ms"),
        ("entries SET ci_low_ms = NULL", "both ends or neither"),
        ("entries SET own_error = 'x'", "own_error is 'x'"),
        ("entries SET warnings = x'ff'", "warnings is X'FF'"),
        ("op_specs SET key = x'ff' WHERE id = 1", "key is X'FF'"),
        ("op_specs SET key = 'rm -rf /' WHERE id = 1", "is no operator configuration"),
        ("op_specs SET kind = 'skip'", "columns are not those of"),
        ("op_specs SET key = CAST(x'ff41' AS TEXT) WHERE id = 1", "UTF-8"),
        ("measurements SET reading_ms = 9e999", "measurements row 1 .*reading_ms"),
        ("measurements SET build_index = 9223372036854775807", "build_index is 92233"),
        ("measurements SET samples = x'00'", "measurements row 1: samples"),
        ("measurements SET n = n + 1", "samples, where n says"),
        ("measurements SET pass_id = 99999 WHERE id = 1", "missing row of passes"),
        ("sentinel_readings SET reading_ms = 0.0", "a row that a CHECK refuses"),
        ("runs SET environment = '{'", "runs row 1: environment is '{'"),
        ("runs SET settings = '[]'", "settings is '\\[\\]', expected a JSON object"),
        ("facts SET value = 'nan' WHERE name = 'shared_error'", "fact shared_error is 'nan'"),
        ("facts SET value = '{\"evil\": 1}' WHERE name = 'roofline'", "fact roofline"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(measured: Path, change: str, words: str) -> None:
    if "CHECK" in words:
        with pytest.raises(sqlite3.IntegrityError):
            _spoilt(measured, f"UPDATE {change}")
        return
    _spoilt(measured, f"UPDATE {change}")
    found = CliRunner().invoke(main, ["table", "check", str(measured)])
    assert found.exit_code in (1, 2), found.output
    assert re.search(words, found.output.replace("\n", " ")), found.output
    good = measured.with_name("good.db")
    with LatencyTable.open(_fresh(good, measured), is_writable=True) as target:
        before = list(target.db.conn.iterdump())
        with pytest.raises(TableError, match=f"(?s){words}"), LatencyTable.open(measured) as source:
            merge(target, source)
        assert list(target.db.conn.iterdump()) == before


def _fresh(path: Path, like: Path) -> Path:
    """A new table of the same identity, with one imported entry."""
    from latlut.table.identity import Identity
    from latlut.table.import_export import import_file

    connection = sqlite3.connect(like)
    row = connection.execute("SELECT * FROM identity")
    values = dict(zip([c[0] for c in row.description], row.fetchone(), strict=True))
    connection.close()
    del values["id"], values["created_at"]
    file = path.with_suffix(".csv")
    file.write_text("op_spec,latency_ms\nconv 4->4 stride 1 at 9x9,1\n")
    import_file(file, path, Identity.from_dict(values).to_dict())
    return path


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE TRIGGER evil AFTER INSERT ON runs BEGIN DELETE FROM entries; END", "trigger evil"),
        ("CREATE VIEW evil AS SELECT 1", "view evil is none"),
        ("DROP VIEW failed", "view failed is missing"),
        ("ALTER TABLE runs ADD COLUMN evil TEXT", "table runs: column evil"),
        (
            "CREATE VIEW {} AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n)"
            " SELECT i AS {} FROM n",
            "is not the one that latlut makes",
        ),
    ],
)
def test_what_latlut_did_not_make_is_refused(measured: Path, statement: str, words: str) -> None:
    if "{}" not in statement:
        path = _spoilt(measured, statement)
        with pytest.raises(TableError, match=words):
            LatencyTable.open(path)
        return
    for kind, view in own_schema().texts:
        if kind == "view":
            path = measured.with_name(f"{view}.db")
            shutil.copy(measured, path)
            _spoilt(path, f"DROP VIEW {view}", statement.format(view, "op_spec"))
            with pytest.raises(TableError, match=f"view {view} {words}"):
                LatencyTable.open(path)


def test_a_pipe_is_no_table_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.db")
    for path in (tmp_path / "t.db", Path("/dev/zero")):
        with pytest.raises(TableError, match="is a pipe, device or socket"):
            LatencyTable.open(path)


def test_a_missing_trigger_is_read_and_named_by_the_check(measured: Path) -> None:
    connection = sqlite3.connect(measured)
    connection.execute("DROP TRIGGER entries_positive")
    connection.commit()
    connection.close()
    with LatencyTable.open(measured) as table:
        assert len(table) == 5
        assert check(table).sentence == "NOT RELIABLE: the trigger entries_positive is missing"


def test_every_table_has_rules_and_every_column_of_a_rule_is_there() -> None:
    columns = own_schema().columns
    assert RULES.keys() == columns.keys() - {"_sqlite_migrations", "identity"}
    for table, rules in RULES.items():
        assert {rule.column for rule in rules} <= {column[0] for column in columns[table]}


def test_a_query_that_never_ends_is_ended(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latlut.table.storage._STEPS", 2_000_000)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with LatencyTable.open(measured) as table:
        with pytest.raises(TableError, match="more steps than a sound file"):
            table.rows(endless)
        assert len(table) == 5


def test_samples_that_swell_are_refused(measured: Path) -> None:
    bomb = pack_samples(np.zeros(2 * MOST_SAMPLES, dtype=np.int64))
    assert len(bomb) < 50_000
    _spoilt(measured, "UPDATE measurements SET samples = ?", values=(bomb,))
    with LatencyTable.open(measured) as table:
        assert faults(table) == [
            f"measurements row 1: more than {MOST_SAMPLES} samples of one measurement"
        ]


def test_flipped_bits_are_refused_or_read_never_a_crash(measured: Path, tmp_path: Path) -> None:
    """Seeded; LATLUT_FAULTS sets how many files."""
    good = measured.read_bytes()
    commands = (
        ["table", "info", "t.db"],
        ["table", "check", "t.db"],
        ["table", "query", "t.db"],
        ["estimate", "--table", "t.db", "--op", "conv 8->8 stride 1 at 16x16"],
    )
    chance = random.Random(20)
    runner = CliRunner()
    ends = set()
    path = tmp_path / "t.db"
    for case in range(int(os.environ.get("LATLUT_FAULTS") or 100)):
        content = bytearray(good)
        # Half of them where they do most: in the schema and the small tables.
        room = len(content) if case % 2 else 16384
        for _ in range(chance.choice((1, 1, 3, 20))):
            content[chance.randrange(100, room)] ^= 1 << chance.randrange(8)
        words = list(commands[case % len(commands)])
        path.write_bytes(content)
        found = runner.invoke(main, [str(path) if word == "t.db" else word for word in words])
        ends.add(found.exit_code)
        assert found.exception is None or isinstance(found.exception, (SystemExit, LatlutError)), (
            case,
            words,
            found.exception,
        )
    assert ends == {0, 1, 2}
