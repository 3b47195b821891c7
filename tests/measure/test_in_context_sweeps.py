"""In-context sweeps: differences with their intervals, zero and below; modes; the command."""

from __future__ import annotations

import json
from pathlib import Path

import fake_engine
import pytest
from click.testing import CliRunner, Result
from fake_engine import OPS, FakeEngine, TacticsEngine, work_ns
from in_context_sweeps import (
    CONTEXT_OPS,
    SKIP,
    STEM,
    sweep_of,
    truth_ms,
)

from latlut.cli import main
from latlut.errors import EngineError, IdentityError, SpecError
from latlut.measure.sweep_settings import identity_of
from latlut.opspec import OpSpec
from latlut.table.identity import MODES, Identity
from latlut.table.roofline import Roofline
from latlut.table.samples import unpack_samples
from latlut.table.summary import NEAR_ZERO, summarise
from latlut.table.table import LatencyTable

pytestmark = pytest.mark.usefixtures("scripted_in_context")


# ---- the sweep -----------------------------------------------------------------------------


def test_entries_are_differences_with_intervals_around_them(swept: Path) -> None:
    with LatencyTable.open(swept) as table:
        for text in CONTEXT_OPS:
            entry = table.lookup(OpSpec.parse(text))
            assert entry.ci_low_ms is not None and entry.ci_high_ms is not None
            half_ms = (entry.ci_high_ms - entry.ci_low_ms) / 2
            assert entry.latency_ms == pytest.approx((entry.ci_high_ms + entry.ci_low_ms) / 2)
            assert abs(entry.latency_ms - truth_ms(entry.spec)) <= 2 * half_ms
            assert half_ms < 0.01
        assert table.lookup(OpSpec.parse(OPS[4])).latency_ms < 0


def test_zero_is_stored_and_said_to_be_indistinguishable(swept: Path) -> None:
    with LatencyTable.open(swept) as table:
        entry = table.lookup(OpSpec.parse(SKIP))
        assert NEAR_ZERO in entry.warnings
        assert not entry.is_distinguishable
        assert entry.ci_percent is None
        assert entry.own_error_ms is not None
        assert NEAR_ZERO not in table.lookup(OpSpec.parse(OPS[0])).warnings
        assert table.rows("SELECT count(*) AS n FROM suspects")[0]["n"] >= 1


def test_both_graphs_are_kept_so_that_the_difference_can_be_computed_again(swept: Path) -> None:
    from latlut.stats.differences import paired_reading

    with LatencyTable.open(swept) as table:
        rows = table.rows(
            "SELECT key, reading_ms, with_ms, without_ms, n, samples, without_samples, turn_sizes"
            " FROM measurements JOIN op_specs ON op_specs.id = op_spec_id"
        )
        assert len(rows) == 5 * len(CONTEXT_OPS)
        for row in rows:
            if row["key"] == STEM:
                assert row["with_ms"] is row["without_ms"] is row["without_samples"] is None
                continue
            found = paired_reading(
                unpack_samples(row["samples"]),
                unpack_samples(row["without_samples"]),
                json.loads(row["turn_sizes"]),
                "p10",
            )
            assert found.difference_ms.value == pytest.approx(row["reading_ms"])
            assert row["with_ms"] - row["without_ms"] == pytest.approx(row["reading_ms"])
            assert sum(json.loads(row["turn_sizes"])) == row["n"]
        assert {"with_ms", "without_ms"} <= set(table.rows("SELECT * FROM readings LIMIT 1")[0])


def test_entries_come_out_the_same_when_computed_again(swept: Path) -> None:
    with LatencyTable.open(swept, is_writable=True) as table:
        before = list(table)
        summarise(table)
        assert list(table) == before


def test_both_sessions_are_fresh_in_each_pass_and_closed(db_path: Path) -> None:
    engine = FakeEngine()
    sweep = sweep_of(db_path, engine=engine)
    summary = sweep.run()
    assert summary.status == "done"
    assert engine.closed == len(engine.opened)
    pairs = [name for name in engine.opened if name.startswith("the neighbours of ")]
    assert len(pairs) == 5 * (len(CONTEXT_OPS) - 1)  # the stem has none
    beside = [spec.key for spec in sweep.sentinels]
    assert [name for name in engine.opened if name in beside] == beside * 5  # alone, as ever


def test_a_graph_that_is_rejected_is_a_failure_of_its_op_spec_alone(db_path: Path) -> None:
    engine = FakeEngine()
    engine.rejects = {f"{OPS[0]} in context", f"the neighbours of {OPS[1]}"}
    sweep = sweep_of(db_path, engine=engine)
    summary = sweep.run()
    assert set(summary.failed) == {OPS[0], OPS[1]}
    assert len(sweep.table) == len(CONTEXT_OPS) - 2
    assert engine.closed == len(engine.opened)


def test_a_context_that_computes_something_else_is_never_timed(db_path: Path) -> None:
    engine = FakeEngine()
    engine.wrong = {f"the neighbours of {OPS[0]}"}
    sweep = sweep_of(db_path, ops=OPS[:2], engine=engine)
    summary = sweep.run()
    assert list(summary.failed) == [OPS[0]]
    assert "differs from PyTorch" in summary.failed[OPS[0]]


def test_a_stopped_sweep_goes_on_and_a_second_one_measures_nothing(swept: Path) -> None:
    summary = sweep_of(swept, passes=6).run()
    assert (summary.reused, summary.measured) == (5 * len(CONTEXT_OPS), len(CONTEXT_OPS))
    assert sweep_of(swept, passes=6).run().measured == 0


def test_passes_on_a_slower_machine_are_brought_to_the_usual_speed(db_path: Path) -> None:
    engine = FakeEngine(noise=0.002)
    sweep = sweep_of(db_path, engine=engine, passes=6, group=2)
    levels = iter([1.0, 1.0, 1.05, 1.0, 0.97, 1.0])
    current = {"speed": 1.0}
    one_pass = sweep._one_pass

    def at_another_speed(index: int, specs: list[OpSpec]) -> bool:
        current["speed"] = next(levels)
        return one_pass(index, specs)

    sweep._one_pass = at_another_speed  # type: ignore[method-assign]
    engine.speed = lambda runs: current["speed"]
    sweep.run()
    assert float(sweep.table.fact("elasticity") or 0) == pytest.approx(1, abs=0.2)
    for text in OPS[:4]:
        entry = sweep.table.lookup(OpSpec.parse(text))
        assert entry.latency_ms == pytest.approx(truth_ms(entry.spec, 0.002), rel=0.02)


def test_builds_are_those_of_both_graphs(db_path: Path) -> None:
    engine = TacticsEngine()
    engine.build_speed = lambda name, build: 1 + 0.05 * build
    sweep = sweep_of(db_path, ops=OPS, engine=engine, passes=4, rebuilds=2)
    sweep.run()
    assert {build for name, build in engine.builds if "neighbours" in name} == {0, 1}
    entry = sweep.table.lookup(OpSpec.parse(OPS[0]))
    assert entry.builds == 2
    assert entry.build_error is not None and entry.build_error > 0
    assert entry.build_sd == pytest.approx(0.035, rel=0.8)  # of the graphs, not of the difference


def test_the_gpu_is_watched_beside_both_graphs(db_path: Path) -> None:
    """Read on the thread that measures, once per round of all turns, as for whole latencies."""
    from latlut.machine.gpu_state import GpuState

    class Watcher:
        calls = 0

        def snapshot(self) -> GpuState:
            self.calls += 1
            return GpuState(sm_mhz=1900, throttle_reasons=(), other_processes=(), uuid="GPU-0")

        def sm_mhz(self) -> int:
            return 1900

    sweep = sweep_of(db_path, group=3, passes=2)
    watcher = sweep.monitor = Watcher()
    sweep.run()
    groups = sweep.table.rows("SELECT * FROM gpu_log WHERE phase = 'group'")
    assert len(groups) == 2 * 3  # two passes, seven op specs in groups of three
    turns = sweep.table.rows("SELECT max(json_array_length(turn_sizes)) AS most FROM measurements")
    assert 2 * 3 < watcher.calls <= 2 + 2 * 3 * (turns[0]["most"] + 10)


def test_a_difference_is_impossible_only_if_its_upper_end_is(db_path: Path) -> None:
    """And what it moves says nothing: a map may stay in the cache."""
    slow = Roofline(flops_per_s=1e9, memory_bytes_per_s=1.0, cache_bytes_per_s=1.0)
    sweep = sweep_of(db_path, roofline=slow)
    sweep.run()
    flagged = {entry.key for entry in sweep.table if "peak figures" in entry.warnings}
    assert SKIP not in flagged
    assert OPS[2] in flagged


# ---- identity ------------------------------------------------------------------------------


def test_the_mode_is_part_of_the_identity(swept: Path, swept_alone: Path) -> None:
    engine = FakeEngine()
    with pytest.raises(IdentityError, match="mode: 'in-context' here, 'standalone' there"):
        LatencyTable.create(swept, identity_of(engine, "cpu", statistic="p10"))
    with LatencyTable.open(swept) as table, LatencyTable.open(swept_alone) as alone:
        assert table.identity.file_stem == f"{alone.identity.file_stem}-in-context"


def test_an_unknown_mode_is_no_identity() -> None:
    values = Identity("cpu", "test", "none", "0").to_dict()
    with pytest.raises(IdentityError, match="standalone, in-context"):
        Identity.from_dict(values | {"mode": "elsewhere"})


class OneAtATimeEngine(FakeEngine):
    """Scripted: sessions that cannot be open side by side."""

    name = "fake-single"
    title = "Fake engine with one seat"
    supports_in_context = False


def test_an_engine_whose_sessions_cannot_take_turns_is_refused(db_path: Path) -> None:
    sweep = sweep_of(db_path, engine=OneAtATimeEngine())
    with pytest.raises(EngineError, match="one seat cannot measure operators in context"):
        sweep.run()
    assert sweep.table.rows("SELECT * FROM runs") == []


def test_a_mode_that_there_is_not_is_refused() -> None:
    from latlut.measure.sweep_settings import check_mode

    with pytest.raises(SpecError, match="standalone, in-context"):
        check_mode(FakeEngine(), "in context")


# ---- the command ---------------------------------------------------------------------------


def _run(*args: str) -> Result:
    result = CliRunner().invoke(main, list(args))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_profile_in_context_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fake_engine, "work_ns", work_ns)
    words = ["profile", "--cpu", "--mode", "in-context", "--passes", "2", "--quiet", "--json"]
    result = _run(*words, "--op", "conv 8->8 at 16x16", "--op", "conv 3->8 stride 2 at 32x32")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    path = "profiles/cpu-onnxruntime-fp32-in-context.db"
    assert (found["table"], found["entries"], found["failed"]) == (path, 2, {})
    # The mode of a table that is there need not be said again.
    result = _run("profile", "--table", path, "--op", "conv 8->4 at 16x16", "--passes", "2", "-q")
    assert result.exit_code == 0, result.output
    with LatencyTable.open(path) as table:
        assert len(table) == 3
    for words in (["table", "info", path], ["table", "query", path],
                  ["estimate", "--table", path, "--op", "conv 8->4 at 16x16"]):  # fmt: skip
        assert _run(*words).exit_code == 0
    _run("table", "check", path)
    result = _run("profile", "--table", path, "--mode", "standalone", "--op", "conv 8->4 at 16x16")
    assert result.exit_code == 2
    assert "mode: 'in-context' here, 'standalone' there" in result.output


def test_modes_are_those_of_the_identity() -> None:
    result = _run("profile", "--mode", "elsewhere")
    assert result.exit_code == 2
    assert all(mode in result.output for mode in MODES)
