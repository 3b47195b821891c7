"""check gives one verdict, diff the entries that moved, merge joins what belongs together."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_engine import OPS, FakeEngine
from small_tables import invented_ms, make_table

from latlut.cli import main
from latlut.errors import IdentityError, TableError
from latlut.machine.provenance import collect_environment
from latlut.measure.plans import plan_from_ops
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.opspec import OpSpec
from latlut.table.diff import diff
from latlut.table.merging import merge, merge_files
from latlut.table.table import LatencyTable
from latlut.validation.verdict import Level, check


def _table(path: Path, ops=OPS, speed: float = 1.0, seed: int = 0, statistic="p10", **settings):
    engine = FakeEngine(seed=seed)
    engine.speed = lambda runs: speed
    with LatencyTable.create(path, identity_of(engine, "cpu", statistic=statistic)) as table:
        Sweep(table, plan_from_ops(ops), engine, SweepSettings(**settings)).run()
    return path


def test_a_good_table_says_how_accurate_its_entries_are(measured: Path) -> None:
    with LatencyTable.open(measured) as table:
        verdict = check(table, collect_environment())
    assert verdict.level is Level.CAUTION
    assert 0 < verdict.entry_percent < 5
    assert verdict.network_percent is None
    assert "no network was measured" in verdict.sentence
    assert verdict.changes == ()


def test_impossible_entries_are_not_reliable_and_failures_are_named(measured: Path) -> None:
    connection = sqlite3.connect(measured)
    connection.execute(
        "UPDATE entries SET warnings = 'faster than the target''s peak figures allow'"
        " WHERE op_spec_id = 1"
    )
    connection.execute("INSERT INTO failures VALUES (2, 1, 'now', 'out of memory')")
    connection.commit()
    connection.close()
    with LatencyTable.open(measured) as table:
        verdict = check(table)
    assert not verdict.is_reliable
    assert "faster than the hardware" in verdict.sentence
    failed = next(reason for reason in verdict.reasons if "could not be measured" in reason.text)
    assert failed.level is Level.CAUTION
    assert failed.text.startswith(
        "operator configurations that could not be measured: 1, such as conv"
    )
    assert len(verdict.suspects) == 1


def test_an_empty_table_is_not_reliable(db_path: Path, identity) -> None:
    with LatencyTable.create(db_path, identity) as table:
        assert check(table).sentence.startswith("NOT RELIABLE: it has no entries")


def test_what_changed_on_the_machine_is_said(measured: Path) -> None:
    now = collect_environment()
    now["kernel"] = "another kernel"
    with LatencyTable.open(measured) as table:
        changes = check(table, now).changes
        assert any("another kernel" in line for line in changes)
        assert "measured on host" in check(table, {**now, "host": "elsewhere"}).changes[0]


def test_diff_finds_what_moved_and_nothing_else(tmp_path: Path) -> None:
    ops = [f"conv 4->4 at 8x{width}" for width in range(8, 28)]
    before = _table(tmp_path / "before.db", ops)
    after = _table(tmp_path / "after.db", ops, seed=1)
    connection = sqlite3.connect(after)
    connection.execute(
        "UPDATE entries SET latency_ms = 1.5 * latency_ms WHERE op_spec_id ="
        " (SELECT id FROM op_specs WHERE key LIKE '%8x20')"
    )
    connection.commit()
    connection.close()
    with LatencyTable.open(before) as first, LatencyTable.open(after) as second:
        found = diff(first, second)
        assert found.moves[0].key.endswith("8x20")
        assert found.moves[0].has_moved
        assert len(found.moved) <= 3
        assert found.overall == pytest.approx(1.0, abs=0.01)
        assert found.identity == ()
        assert found.by_chance == pytest.approx(1.0)


def test_diff_across_identities_says_what_differs(tmp_path: Path) -> None:
    before = _table(tmp_path / "a.db", OPS[:3])
    after = _table(tmp_path / "b.db", OPS[1:], statistic="median")
    with LatencyTable.open(before) as first, LatencyTable.open(after) as second:
        found = diff(first, second)
    assert found.identity == ("statistic: p10 in BEFORE, median in AFTER",)
    assert found.only_before == (OPS[0],)
    assert len(found.only_after) == 2


def test_merge_adds_runs_once_and_computes_entries_again(tmp_path: Path) -> None:
    into = _table(tmp_path / "a.db", OPS[:3])
    source = _table(tmp_path / "b.db", OPS[2:], seed=1)
    with LatencyTable.open(into, is_writable=True) as target, LatencyTable.open(source) as other:
        report = merge(target, other)
        assert (report.runs, report.measurements, report.skipped_runs) == (1, 15, 0)
        assert len(target) == 5
        assert target.lookup(OpSpec.parse(OPS[2])).passes == 10
        again = merge(target, other)
        assert (again.runs, again.measurements, again.skipped_runs) == (0, 0, 1)
        assert target.rows("PRAGMA foreign_key_check") == []


def test_merge_takes_measurements_that_were_never_summarised(tmp_path: Path) -> None:
    into = _table(tmp_path / "a.db", OPS[:1])
    source = _table(tmp_path / "b.db", OPS[1:3], seed=1)
    connection = sqlite3.connect(source)
    connection.execute("DELETE FROM entries")
    connection.commit()
    connection.close()
    with LatencyTable.open(into, is_writable=True) as target, LatencyTable.open(source) as other:
        assert merge(target, other).measurements == 10
        assert len(target) == 3


def test_merge_refuses_another_identity_and_itself(tmp_path: Path) -> None:
    into = _table(tmp_path / "a.db", OPS[:2])
    other = _table(tmp_path / "b.db", OPS[:2], statistic="median")
    copy = tmp_path / "link.db"
    copy.symlink_to(into)
    with LatencyTable.open(into, is_writable=True) as target:
        with LatencyTable.open(other) as source, pytest.raises(IdentityError, match="statistic"):
            merge(target, source)
        with LatencyTable.open(copy) as source, pytest.raises(TableError, match="itself"):
            merge(target, source)
        assert len(target) == 2


def test_a_copy_merged_back_adds_nothing(measured: Path, tmp_path: Path) -> None:
    copy = shutil.copy(measured, tmp_path / "copy.db")
    with LatencyTable.open(measured, is_writable=True) as target, LatencyTable.open(copy) as source:
        before = target.frame()
        assert merge(target, source).skipped_runs == 1
        assert target.frame().equals(before)


def test_a_refused_merge_makes_no_file(tmp_path: Path, measured: Path) -> None:
    other = tmp_path / "other.db"
    with LatencyTable.open(measured) as table:
        identity = replace(table.identity, driver="other")
    LatencyTable.create(other, identity).close()
    with pytest.raises(IdentityError, match="driver"):
        merge_files(tmp_path / "new.db", [measured, other])
    assert not (tmp_path / "new.db").exists()
    ((_, report),) = merge_files(tmp_path / "new.db", [measured])
    assert report.runs == 1
    ((_, again),) = merge_files(tmp_path / "new.db", [measured])
    assert (again.runs, again.skipped_runs) == (0, 1)


def test_diff_names_the_faster_table(tmp_path: Path) -> None:
    for name, factor in (("slow", 1.36), ("fast", 1.0), ("same", 1.0)):
        path = tmp_path / f"{name}.db"
        specs = map(OpSpec.parse, OPS)
        make_table(path, specs, lambda spec, factor=factor: factor * invented_ms(spec)).close()

    def said(before: str, after: str) -> str:
        words = ["table", "diff", str(tmp_path / f"{before}.db"), str(tmp_path / f"{after}.db")]
        return CliRunner().invoke(main, words).stdout

    faster = f"{tmp_path / 'fast.db'} is 1.36 times faster (median)\n"
    assert faster in said("slow", "fast") and faster in said("fast", "slow")
    assert "both are equally fast (median)\n" in said("fast", "same")
