"""What reads in-context tables, and the files that hold them: nothing minds zero and below."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from fake_engine import OPS, FakeEngine
from in_context_sweeps import (
    CONTEXT_OPS,
    SKIP,
    STEM,
    sweep_of,
)
from small_tables import make_table

from latlut.errors import IdentityError, ImportFileError, TableError
from latlut.measure.coverage import plan_coverage
from latlut.measure.plans import load_plan, plan_from_ops
from latlut.opspec import OpSpec
from latlut.penalty import ExpectedLatency
from latlut.pricing.estimator import estimate
from latlut.table.diff import diff
from latlut.table.identity import IN_CONTEXT
from latlut.table.import_export import export_file, import_file
from latlut.table.merging import merge
from latlut.table.space import space_of
from latlut.table.table import LatencyTable
from latlut.validation.validate import ValidationSettings, validate
from latlut.validation.verdict import check

pytestmark = pytest.mark.usefixtures("scripted_in_context")


# ---- what reads the table ------------------------------------------------------------------


def test_check_counts_what_is_zero_and_what_is_negative(swept: Path) -> None:
    with LatencyTable.open(swept) as table:
        verdict = check(table)
        coverage = plan_coverage(table, plan_from_ops(CONTEXT_OPS))
    assert verdict.is_reliable, verdict.sentence
    assert verdict.entry_percent is not None and 0 < verdict.entry_percent < 50
    text = "\n".join(verdict.remarks)
    assert f"1 of {len(CONTEXT_OPS)} entries are not distinguishable from zero" in text
    assert coverage.near_zero == 1
    negative = coverage.negative
    assert negative in (1, 2)  # the free skip falls on either side
    assert f"{negative} entries are negative, 1 of them beyond their interval" in text


def test_differences_are_compared_by_subtraction(swept: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    engine = FakeEngine(seed=9)
    engine.speed = lambda runs: 1.5
    sweep = sweep_of(other, engine=engine)
    sweep.run()
    with LatencyTable.open(swept) as before:
        found = diff(before, sweep.table)
        assert not diff(before, before).moved
    moved = {move.key for move in found.moved}
    assert {OPS[0], OPS[2], OPS[4]} <= moved
    assert SKIP not in moved
    assert found.overall == pytest.approx(1.5, abs=0.05)
    by_key = {move.key: move for move in found.moves}
    assert by_key[OPS[4]].ratio is None  # a ratio of two negatives means nothing
    changes = [abs(move.after_ms - move.before_ms) for move in found.moves]
    assert changes == sorted(changes, reverse=True)


def test_a_table_of_each_mode_can_be_compared(swept: Path, swept_alone: Path) -> None:
    with LatencyTable.open(swept) as table, LatencyTable.open(swept_alone) as alone:
        found = diff(alone, table)
    assert found.identity == ("mode: standalone in BEFORE, in-context in AFTER",)
    assert all(move.bound is None for move in found.moves)
    assert SKIP in {move.key for move in found.moved}


def test_merging_keeps_both_graphs(tmp_path: Path) -> None:
    first, second = tmp_path / "a.db", tmp_path / "b.db"
    for path, seed in ((first, 1), (second, 2)):
        sweep = sweep_of(path, engine=FakeEngine(seed=seed), passes=3, seed=seed)
        sweep.run()
        sweep.table.close()
    shutil.copy(first, tmp_path / "into.db")
    with LatencyTable.open(tmp_path / "into.db", is_writable=True) as into:
        with LatencyTable.open(second) as source:
            report = merge(into, source)
        assert report.measurements == 3 * len(CONTEXT_OPS)
        rows = into.rows("SELECT count(*) AS n FROM measurements WHERE without_samples IS NOT NULL")
        assert rows[0]["n"] == 6 * (len(CONTEXT_OPS) - 1)
        assert into.lookup(OpSpec.parse(OPS[4])).latency_ms < 0


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_export_comes_back_as_it_was(swept: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    file = tmp_path / f"entries{suffix}"
    with LatencyTable.open(swept) as table:
        export_file(table, file)
        expected = {entry.key: entry for entry in table}
        shared = table.shared_error
    import_file(file, tmp_path / "back.db")
    with LatencyTable.open(tmp_path / "back.db") as back:
        assert back.identity.mode == IN_CONTEXT
        assert back.shared_error == shared
        for entry in back:
            assert entry.latency_ms == expected[entry.key].latency_ms
            assert entry.own_error_ms == pytest.approx(expected[entry.key].own_error_ms, abs=1e-12)
            assert entry.is_distinguishable == expected[entry.key].is_distinguishable


def test_a_negative_row_needs_the_mode(tmp_path: Path) -> None:
    file = tmp_path / "plain.csv"
    file.write_text("op_spec,latency_ms,ci_low_ms,ci_high_ms\nskip 8->8 at 4x4,-0.1,-0.3,0.1\n")
    fields = {"target": "cpu", "device_model": "x", "engine": "y", "engine_version": "1"}
    with pytest.raises(ImportFileError, match="latency_ms: received '-0.1', expected a positive"):
        import_file(file, tmp_path / "a.db", dict(fields))
    import_file(file, tmp_path / "b.db", fields | {"mode": IN_CONTEXT})
    with LatencyTable.open(tmp_path / "b.db") as table:
        (entry,) = list(table)
        assert (entry.latency_ms, entry.own_error_ms) == (-0.1, pytest.approx(0.2))
        assert check(table).is_reliable
    file.write_text("op_spec,latency_ms\nskip 8->8 at 4x4,0.1\n")
    with pytest.raises(IdentityError, match="mode is one of"):
        import_file(file, tmp_path / "c.db", fields | {"mode": "alone"})


def test_estimates_add_differences_up(swept: Path) -> None:
    specs = [OpSpec.parse(text) for text in (OPS[0], OPS[0], OPS[4], SKIP, STEM)]
    with LatencyTable.open(swept) as table:
        found = estimate(specs, table)
        entries = {spec: table.lookup(spec) for spec in specs}
        alone = estimate([OpSpec.parse(OPS[4])], table)
    assert found.ms == pytest.approx(sum(entries[spec].latency_ms for spec in specs))
    assert found.ci_low_ms is not None and found.ci_high_ms is not None
    assert found.ci_low_ms < found.ms < found.ci_high_ms
    assert alone.ci_low_ms is not None and alone.ci_low_ms < alone.ms < 0


def test_the_penalty_takes_differences(swept: Path) -> None:
    import torch

    with LatencyTable.open(swept) as table:
        layer = [OpSpec.parse(OPS[0]), OpSpec.parse(OPS[2]), OpSpec.parse(SKIP)]
        module = ExpectedLatency([layer], table, fixed=[OpSpec.parse(OPS[4])])
    logits = torch.zeros(1, 3, requires_grad=True)
    module(logits).backward()
    assert torch.isfinite(logits.grad).all()


PLAN = """
format = 1
input = "64x64"
[space]
name = "fasterseg"
layers = 4
widths = [4]
stem_head_widths = [4]
"""


def test_networks_are_validated_and_searched_against_differences(tmp_path: Path) -> None:
    from latlut.search import DecoupledLatency, RelaxedArchitecture

    file = tmp_path / "small.toml"
    file.write_text(PLAN)
    sweep = sweep_of(tmp_path / "small.db", ops=load_plan(file), passes=3)
    sweep.run()
    table = sweep.table
    found = validate(
        table, FakeEngine(seed=5), space_of(table), ValidationSettings(networks=4, rounds=2)
    )
    assert found.readings.speed_factor == pytest.approx(1, abs=0.02)
    assert all(np.isfinite(item.estimate.ms) for item in found.networks)
    space = space_of(table).space
    penalty = DecoupledLatency(space, table, input_size=(64, 64), end_width=4)
    relaxed = RelaxedArchitecture(space, end_width=4)
    assert np.isfinite(float(penalty(relaxed).penalty_ms.detach()))


# ---- the file ------------------------------------------------------------------------------


def test_a_standalone_table_still_refuses_zero_and_below(tmp_path: Path) -> None:
    spec = OpSpec.parse(OPS[0])
    with make_table(tmp_path / "alone.db", [spec]) as table:
        for sql in (
            "UPDATE entries SET latency_ms = 0",
            "INSERT OR REPLACE INTO entries (op_spec_id, latency_ms, passes, n, updated_at)"
            " VALUES (1, -1, 1, 1, 'now')",
        ):
            with pytest.raises(TableError, match="latency_ms > 0"), table.writing() as db:
                db.execute(sql)
        assert table.lookup(spec).latency_ms > 0


def test_a_reading_below_zero_is_refused_alone(swept_alone: Path) -> None:
    with LatencyTable.open(swept_alone, is_writable=True) as table:
        for sql in (
            "UPDATE measurements SET reading_ms = -1",
            "INSERT OR REPLACE INTO measurements (op_spec_id, pass_id, at, n, reading_ms)"
            " VALUES (1, 1, 'now', 1, 0)",
        ):
            with pytest.raises(TableError, match="reading_ms > 0"), table.writing() as db:
                db.execute(sql)


def test_a_file_of_before_differences_keeps_everything(swept_alone: Path, tmp_path: Path) -> None:
    """A file with the first three schema steps, filled with the rows of a measured table."""
    path = tmp_path / "old.db"
    kept = _write_old_file(path, swept_alone)
    before = path.read_bytes()
    with LatencyTable.open(swept_alone) as table:
        entries = list(table)
    with LatencyTable.open(path) as table:  # through a copy
        assert [entry.latency_ms for entry in table] == [entry.latency_ms for entry in entries]
        assert check(table).is_reliable
    assert path.read_bytes() == before
    with LatencyTable.open(path, is_writable=True) as table:
        for name, (columns, rows) in kept.items():
            sql = f"SELECT {columns} FROM {name} ORDER BY 1, 2"
            assert table.db.execute(sql).fetchall() == rows, name
        assert len(kept["validation_networks"][1]) == 2
        for entry in table:
            assert entry.own_error_ms == pytest.approx(entry.own_error * entry.latency_ms)
        for view in ("latencies", "suspects", "readings", "failed", "run_log", "gpu_log"):
            table.rows(f"SELECT * FROM {view}")
        assert table.rows("PRAGMA integrity_check")[0]["integrity_check"] == "ok"
        assert table.rows("PRAGMA foreign_key_check") == []
        with pytest.raises(TableError, match="latency_ms > 0"), table.writing() as db:
            db.execute("UPDATE entries SET latency_ms = -1")
    assert sweep_of(path, mode="standalone", passes=6).run().measured == len(CONTEXT_OPS)


def _write_old_file(path: Path, source: Path) -> dict[str, tuple[str, list[tuple]]]:
    """Table -> its columns then, and its rows."""
    from sqlite_utils import Database

    from latlut.table.schema import migrations

    old = Database(sqlite3.connect(path))
    migrations.ensure_migrations_table(old)
    for migration in list(migrations._migrations)[:3]:
        migration.fn(old)
        old["_sqlite_migrations"].insert(
            {"migration_set": "latlut", "name": migration.name, "applied_at": "2026-01-01"}
        )
    old.conn.execute("ATTACH ? AS newer", [str(source)])
    found = {}
    for name in old.table_names():
        if name == "_sqlite_migrations":
            continue
        columns = ", ".join(row[1] for row in old.execute(f"PRAGMA table_info({name})").fetchall())
        old.execute(f"INSERT INTO {name} ({columns}) SELECT {columns} FROM newer.{name}")
        found[name] = columns
    old.execute("INSERT INTO validations VALUES (1, 'then', 2, 0, 's', '{}', '{}', '{}', '0.1')")
    for position in range(2):
        old.execute(
            "INSERT INTO validation_networks VALUES (1, ?, '{}', 1, 1, 1, 1, 1)", [position]
        )
    kept = {
        name: (columns, old.execute(f"SELECT {columns} FROM {name} ORDER BY 1, 2").fetchall())
        for name, columns in found.items()
    }
    old.conn.commit()
    old.close()
    return kept
