"""A table is merged again and again while another process still measures into it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from fake_engine import FakeEngine

from latlut.measure.sweep_settings import identity_of
from latlut.table.merging import merge
from latlut.table.table import LatencyTable

SWEEP = """
import sys, time
from fake_engine import OPS, FakeEngine
from latlut.measure.plans import plan_from_ops
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.table.table import LatencyTable
engine = FakeEngine()
with LatencyTable.create(sys.argv[1], identity_of(engine, "cpu", statistic="p10")) as table:
    settings = SweepSettings(passes=6, group=1)
    Sweep(table, plan_from_ops(OPS), engine, settings, listener=lambda _: time.sleep(0.1)).run()
"""
CONTENT = (
    "SELECT key, pass_index, reading_ms, measurements.at AS at FROM measurements"
    " JOIN op_specs ON op_specs.id = op_spec_id JOIN passes ON passes.id = pass_id"
    " ORDER BY key, pass_index"
)


def test_nothing_is_lost_and_nothing_is_doubled(tmp_path: Path) -> None:
    source, into = tmp_path / "source.db", tmp_path / "into.db"
    tests = Path(__file__).parents[1]
    sweep = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tests)!r})\n{SWEEP}", source]
    )
    while not source.exists():
        assert sweep.poll() is None
        time.sleep(0.02)
    grown = []
    with LatencyTable.create(into, identity_of(FakeEngine(), "cpu", statistic="p10")) as target:
        while sweep.poll() is None:
            with LatencyTable.open(source) as running:
                report = merge(target, running)
            grown.append(report.measurements)
            time.sleep(0.1)
        assert sweep.returncode == 0
        with LatencyTable.open(source) as done:
            merge(target, done)
            again = merge(target, done)
            assert target.rows(CONTENT) == done.rows(CONTENT)
            assert [run["status"] for run in target.rows("SELECT status FROM runs")] == ["done"]
            for entry in done:
                assert target.lookup(entry.spec).latency_ms == entry.latency_ms
    assert sum(count > 0 for count in grown) >= 3, grown  # it was merged while it grew
    assert (again.measurements, again.runs, again.grown_runs) == (0, 0, 0)
