"""The sweep: complete, resumable, aware of a disturbed machine; failures are never numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_engine import OPS, FakeEngine, work_ns

from latlut.errors import UnknownNameError
from latlut.machine.provenance import collect_environment
from latlut.measure.coverage import plan_coverage
from latlut.measure.plans import Plan, plan_from_ops
from latlut.measure.sentinels import choose_sentinels
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.progress import Progress
from latlut.table.identity import Identity
from latlut.table.recording import start_run
from latlut.table.roofline import Roofline
from latlut.table.samples import unpack_samples
from latlut.table.table import LatencyTable


def _sweep(
    path: Path, plan: Plan, engine: FakeEngine, settings: SweepSettings | None = None, **more
) -> Sweep:
    table = LatencyTable.create(path, identity_of(engine, "cpu", statistic="p10"))
    return Sweep(table, plan, engine, settings or SweepSettings(), **more)


def test_every_op_spec_is_measured_in_every_pass_with_fresh_sessions(
    db_path: Path, plan: Plan, engine: FakeEngine
) -> None:
    sweep = _sweep(db_path, plan, engine)
    summary = sweep.run()
    assert summary.status == "done"
    assert summary.measured == 5 * len(plan.specs)
    assert engine.closed == len(engine.opened)
    sentinels = 5 * len(sweep.sentinels)
    assert len(engine.opened) == summary.measured + sentinels
    rows = sweep.table.rows("SELECT op_spec, count(*) AS n FROM readings GROUP BY op_spec")
    assert {row["op_spec"]: row["n"] for row in rows} == dict.fromkeys(OPS, 5)


def test_entries_are_near_the_truth_and_inside_their_intervals(
    db_path: Path, plan: Plan, engine: FakeEngine
) -> None:
    sweep = _sweep(db_path, plan, engine)
    sweep.run()
    for spec in plan.specs:
        truth_ms = work_ns(Workload.from_spec(spec)) * np.exp(-1.2816 * engine.noise) / 1e6
        entry = sweep.table.lookup(spec)
        assert entry.latency_ms == pytest.approx(truth_ms, rel=0.01)
        half_width = (entry.ci_high_ms - entry.ci_low_ms) / 2
        assert abs(entry.latency_ms - truth_ms) <= 2 * half_width  # of five 95% intervals


def test_raw_samples_and_provenance_are_kept(measured: Path, plan: Plan) -> None:
    with LatencyTable.open(measured) as table:
        row = table.rows("SELECT n, samples, min_ms, max_ms, parity FROM measurements LIMIT 1")[0]
        samples = unpack_samples(row["samples"])
        assert len(samples) == row["n"]
        assert samples.min() / 1e6 == row["min_ms"]
        assert row["parity"] is not None
        run = table.rows("SELECT * FROM runs")[0]
        assert run["plan_hash"] == plan.hash
        assert run["ended_at"]
        assert json.loads(run["environment"])["cpu_model"]
        assert json.loads(run["settings"])["passes"] == 5
        assert json.loads(run["environment_end"])["load_1min"] is not None
        assert json.loads(run["seconds"])["total"] > 0


def test_a_second_run_measures_nothing(measured: Path, plan: Plan, engine: FakeEngine) -> None:
    summary = _sweep(measured, plan, engine).run()
    assert (summary.measured, summary.reused, summary.status) == (0, 25, "done")


def test_more_passes_and_new_op_specs_are_added(
    measured: Path, plan: Plan, engine: FakeEngine
) -> None:
    larger = plan_from_ops([*OPS, "conv 4->4 at 8x8"])
    summary = _sweep(measured, larger, engine, SweepSettings(passes=6)).run()
    assert summary.measured == 5 + 6
    with LatencyTable.open(measured) as table:
        assert len(table) == 6


def test_ctrl_c_stores_what_was_measured_and_the_same_command_goes_on(
    db_path: Path, plan: Plan, engine: FakeEngine
) -> None:
    steps: list[Progress] = []

    def stop_after_7(progress: Progress) -> None:
        steps.append(progress)
        if len(steps) == 7:
            raise KeyboardInterrupt

    sweep = _sweep(db_path, plan, engine, SweepSettings(group=1), listener=stop_after_7)
    with pytest.raises(KeyboardInterrupt):
        sweep.run()
    assert sweep.table.rows("SELECT status FROM runs")[0]["status"] == "stopped"
    assert sweep.table.rows("SELECT count(*) AS n FROM measurements")[0]["n"] == 7
    assert len(sweep.table) == 5  # entries are there already, with wide or no intervals
    sweep.table.close()
    summary = _sweep(db_path, plan, engine, SweepSettings(group=1)).run()
    assert (summary.reused, summary.measured) == (7, 18)


def test_a_killed_run_is_recorded_as_such_and_one_in_progress_is_not(measured: Path) -> None:
    begin = (
        "from latlut.machine.provenance import collect_environment as environment; import sys, os; "
        "from latlut.table.recording import start_run\n"
        "from latlut.table.table import LatencyTable; "
        "table = LatencyTable.open(sys.argv[1], is_writable=True); "
        "start_run(table, 'sweep', settings={}, environment=environment()); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", begin, measured], check=False).returncode == 9
    with LatencyTable.open(measured, is_writable=True) as table:
        statuses = [row["status"] for row in table.rows("SELECT status FROM runs ORDER BY id")]
        assert statuses == ["done", "killed"]
        for _ in range(2):
            start_run(table, "sweep", settings={}, environment=collect_environment())
        statuses = [row["status"] for row in table.rows("SELECT status FROM runs ORDER BY id")]
        assert statuses == ["done", "killed", "running", "running"]


def test_a_spent_budget_stops_between_groups(db_path: Path, plan: Plan, engine: FakeEngine) -> None:
    settings = SweepSettings(budget_s=1e-9)
    summary = _sweep(db_path, plan, engine, settings).run()
    assert summary.status == "out of budget"
    assert summary.measured == 0


def test_the_order_is_random_by_pass_and_repeatable(
    tmp_path: Path, engine: FakeEngine, plan: Plan
) -> None:
    def sequence(name: str, seed: int) -> list[int]:
        sweep = _sweep(tmp_path / name, plan, FakeEngine(), SweepSettings(seed=seed))
        sweep.run()
        rows = sweep.table.rows("SELECT op_spec_id FROM measurements ORDER BY id")
        return [row["op_spec_id"] for row in rows]

    first = sequence("a.db", 1)
    assert sequence("b.db", 1) == first
    assert sequence("c.db", 2) != first
    passes = [first[start : start + 5] for start in range(0, 25, 5)]
    assert len({tuple(item) for item in passes}) > 1


def test_a_rejected_op_spec_is_a_failure_and_the_sweep_goes_on(
    db_path: Path, plan: Plan, engine: FakeEngine
) -> None:
    engine.rejects.add(OPS[1])
    sweep = _sweep(db_path, plan, engine)
    summary = sweep.run()
    assert list(summary.failed) == [OPS[1]]
    assert len(sweep.table) == 4
    failed = sweep.table.rows("SELECT * FROM failed")
    assert failed[0]["op_spec"] == OPS[1]
    assert "rejected by the script" in failed[0]["message"]
    engine.rejects.clear()
    _sweep(db_path, plan, engine).run()
    with LatencyTable.open(db_path) as table:
        assert len(table) == 5
        assert table.rows("SELECT * FROM failed") == []


def test_an_op_spec_that_fails_while_running_does_not_take_its_group_along(
    db_path: Path, plan: Plan, engine: FakeEngine
) -> None:
    def fail(workload: Workload, runs: int) -> None:
        if workload.name == OPS[2]:
            raise RuntimeError("out of device memory")

    engine.on_sample = fail
    sweep = _sweep(db_path, plan, engine, SweepSettings(sentinels=0))
    summary = sweep.run()
    assert list(summary.failed) == [OPS[2]]
    assert "out of device memory" in summary.failed[OPS[2]]
    assert len(sweep.table) == 4
    assert engine.closed == len(engine.opened)


def test_a_later_run_uses_the_sentinels_of_the_table(
    measured: Path, plan: Plan, engine: FakeEngine
) -> None:
    sweep = _sweep(measured, plan_from_ops(["conv 4->4 at 8x8"]), engine)
    with LatencyTable.open(measured) as table:
        first = {
            row["op_spec_id"] for row in table.rows("SELECT op_spec_id FROM sentinel_readings")
        }
    sweep.run()
    rows = sweep.table.rows("SELECT op_spec_id FROM sentinel_readings")
    assert {row["op_spec_id"] for row in rows} == first


def test_a_killed_sweep_gets_its_entries_from_the_next_call(
    measured: Path, plan: Plan, engine: FakeEngine
) -> None:
    with LatencyTable.open(measured, is_writable=True) as table, table.writing() as db:
        db.execute("DELETE FROM entries")
    summary = _sweep(measured, plan, engine).run()
    assert summary.measured == 0
    with LatencyTable.open(measured) as table:
        assert len(table) == 5


def test_an_operator_that_differs_from_pytorch_is_never_timed(
    db_path: Path, plan: Plan, engine: FakeEngine
) -> None:
    engine.wrong.add(OPS[0])
    sweep = _sweep(db_path, plan, engine)
    summary = sweep.run()
    assert "differs from PyTorch" in summary.failed[OPS[0]]
    assert OpSpec.parse(OPS[0]) not in sweep.table


def test_unknown_operators_are_refused_before_anything_is_measured(
    db_path: Path, engine: FakeEngine
) -> None:
    sweep = _sweep(db_path, plan_from_ops(["conv 4->4 at 8x8", "wings 4->4 at 8x8"]), engine)
    with pytest.raises(UnknownNameError, match="wings"):
        sweep.run()
    assert engine.opened == []
    assert sweep.table.rows("SELECT * FROM runs") == []


def test_groups_taken_on_a_grossly_slow_machine_are_measured_again(
    db_path: Path, engine: FakeEngine
) -> None:
    """For a while every run takes 1.6 times as long; entries must not show it."""
    plan = plan_from_ops([f"conv 8->8 at 16x{width}" for width in range(8, 32)])
    _sweep(db_path.with_name("plain.db"), plan, engine, SweepSettings(group=3)).run()
    half = engine.runs // 2
    disturbed = FakeEngine(seed=1)
    disturbed.speed = lambda runs: 1.6 if half < runs < half * 1.15 else 1.0
    sweep = _sweep(db_path, plan, disturbed, SweepSettings(group=3))
    summary = sweep.run()
    assert summary.requeued > 0
    assert max(row["requeues"] for row in sweep.table.rows("SELECT requeues FROM readings")) >= 1
    for spec in plan.specs:
        truth_ms = work_ns(Workload.from_spec(spec)) * np.exp(-1.2816 * engine.noise) / 1e6
        assert sweep.table.lookup(spec).latency_ms == pytest.approx(truth_ms, rel=0.02)


def test_a_pass_on_a_slower_machine_is_brought_to_the_common_level(
    db_path: Path, engine: FakeEngine, plan: Plan
) -> None:
    _sweep(db_path.with_name("plain.db"), plan, engine, SweepSettings(group=2)).run()
    per_pass = engine.runs / 5
    drifting = FakeEngine(seed=1)
    drifting.speed = lambda runs: 1.08 if runs < per_pass else 1.0
    sweep = _sweep(db_path, plan, drifting, SweepSettings(group=2))
    sweep.run()
    factors = [r["speed_factor"] for r in sweep.table.rows("SELECT speed_factor FROM passes")]
    assert factors[0] == pytest.approx(1.08, abs=0.02)
    assert sweep.table.shared_error > 0.01  # the level itself is uncertain by that much
    own = [entry.own_error for entry in sweep.table]
    assert max(own) < 0.05  # and the entries' own errors are not widened by it


def test_faster_than_the_hardware_is_flagged(db_path: Path, plan: Plan, engine: FakeEngine) -> None:
    slow_hardware = Roofline(flops_per_s=1e6, cache_bytes_per_s=1e15)
    sweep = _sweep(db_path, plan, engine, roofline=slow_hardware)
    sweep.run()
    entry = sweep.table.lookup(plan.specs[0])
    assert "peak figures" in entry.warnings
    assert entry.roofline_ms == pytest.approx(2e3 * 8 * 8 * 9 * 256 / 1e6)


def test_one_pass_leaves_the_interval_unknown(
    db_path: Path, plan: Plan, engine: FakeEngine
) -> None:
    sweep = _sweep(db_path, plan, engine, SweepSettings(passes=1))
    sweep.run()
    entry = sweep.table.lookup(plan.specs[0])
    assert entry.ci_low_ms is None
    assert "interval unknown" in entry.warnings
    assert plan_coverage(sweep.table, plan).median_ci_percent is None


def test_sentinels_are_neither_the_smallest_nor_the_largest(plan: Plan) -> None:
    specs = [OpSpec("conv", (8, 8, size), 8) for size in range(1, 101)]
    chosen = choose_sentinels(specs, 3)
    assert len(chosen) == 3
    assert all(25 <= spec.inputs[0][2] <= 85 for spec in chosen)
    assert choose_sentinels(list(reversed(specs)), 3) == chosen
    assert choose_sentinels([], 3) == ()
    assert len(choose_sentinels(plan.specs[:1], 3)) == 1


def test_the_statistic_and_protocol_are_part_of_the_identity(identity: Identity) -> None:
    assert identity.statistic == "p10"
    assert identity.protocol_version
    assert identity.file_stem == "cpu-fake-fp32"
