"""Shards: disjoint, together the plan, each into a table of its own, merged into the whole one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fake_engine import OPS, FakeEngine

from latlut.cli import main
from latlut.errors import SpecError
from latlut.measure.parts import Shard
from latlut.measure.plans import Plan, load_plan, plan_from_ops
from latlut.measure.profile import profile
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.table.history import usual_sentinels
from latlut.table.merging import merge_files
from latlut.table.roofline import Roofline, bounds, set_bounds
from latlut.table.table import LatencyTable


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64])
def test_shards_are_disjoint_equal_and_together_the_plan(count: int) -> None:
    plan = load_plan("tiny")
    shares = [Shard(index, count).of(plan).specs for index in range(count)]
    assert sorted(spec.key for share in shares for spec in share) == sorted(
        spec.key for spec in plan.specs
    )
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_shard_owns_the_same_op_specs_in_every_pass() -> None:
    plan = plan_from_ops(OPS)
    for index in range(3):
        shard = Shard(index, 3)
        for number in range(7):
            owned = [spec for place, spec in enumerate(plan.specs) if shard.owns(place, number, 2)]
            assert owned == list(shard.of(plan).specs)


def test_a_shard_beyond_the_plan_is_refused(plan: Plan) -> None:
    with pytest.raises(SpecError, match=r"shard 6/8 is empty.*5 operator configurations"):
        Shard(5, 8).of(plan)


def _sweep(path: Path, plan: Plan, shard: Shard | None, **more) -> LatencyTable:
    engine = FakeEngine(seed=shard.index if shard else 0)
    table = LatencyTable.create(path, identity_of(engine, "cpu", statistic="p10"))
    Sweep(table, plan, engine, SweepSettings(**more), part=shard).run()
    return table


def test_merged_shards_are_the_whole_sweep(tmp_path: Path, plan: Plan) -> None:
    with _sweep(tmp_path / "whole.db", plan, None) as whole:
        expected = {entry.key: entry.passes for entry in whole}
        sentinels = list(usual_sentinels(whole))
    for index in range(3):
        with _sweep(tmp_path / f"{index}.db", plan, Shard(index, 3)) as part:
            assert list(usual_sentinels(part)) == sentinels
            set_bounds(part, Roofline(1e12, 1e11), 0.002)
    reports = merge_files(tmp_path / "merged.db", [tmp_path / f"{index}.db" for index in range(3)])
    assert [report.skipped_runs for _, report in reports] == [0, 0, 0]
    with LatencyTable.open(tmp_path / "merged.db") as merged:
        assert {entry.key: entry.passes for entry in merged} == expected
        assert bounds(merged)[1] == 0.002
        assert bounds(merged)[0].flops_per_s == 1e12
    with LatencyTable.open(tmp_path / "merged.db", is_writable=True) as merged:
        engine = FakeEngine()
        again = Sweep(merged, plan, engine, SweepSettings()).run()
        assert (again.measured, again.reused) == (0, 25)


def test_a_stopped_shard_goes_on_with_its_own_op_specs(db_path: Path, plan: Plan) -> None:
    shard = Shard(1, 2)
    _sweep(db_path, plan, shard, passes=2).close()
    with _sweep(db_path, plan, shard, passes=5) as table:
        rows = table.rows("SELECT op_spec, count(*) AS n FROM readings GROUP BY op_spec")
        assert {row["op_spec"]: row["n"] for row in rows} == {
            spec.key: 5 for spec in shard.of(plan).specs
        }


def test_the_library_call_takes_a_shard(db_path: Path, plan: Plan) -> None:
    from latlut.machine.targets import cpu_target

    settings = SweepSettings(passes=1)
    profile(plan, FakeEngine(), cpu_target(1), db_path, settings, part=Shard(0, 2))
    with LatencyTable.open(db_path) as table:
        assert {entry.key for entry in table} == {OPS[0], OPS[2], OPS[4]}


def _profile(*arguments: str) -> Result:
    ops = [word for op in OPS[:4] for word in ("--op", op)]
    return CliRunner().invoke(main, ["profile", "--cpu", *ops, "--passes", "1", *arguments])


@pytest.mark.parametrize("bad", ["0/4", "5/4", "x/y", "1", "1/0", "-1/4", "1/4/2", ""])
def test_what_is_no_shard_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = _profile("--shard", bad)
    assert result.exit_code == 2
    assert "is no shard: 1/4, 2/4" in result.output
    assert list(tmp_path.rglob("*.db")) == []


def test_the_commands_of_a_job_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        result = _profile("--shard", f"{number}/2", "--json", "--quiet")
        assert result.exit_code == 0, result.output
        said = json.loads(result.stdout)
        assert said["table"] == f"profiles/cpu-onnxruntime-fp32-shard{number}of2.db"
        assert (said["op_specs"], said["entries"]) == (2, 2)
    shards = sorted(map(str, Path("profiles").glob("*-shard*of2.db")))
    merged = CliRunner().invoke(main, ["table", "merge", "profiles/all.db", *shards])
    assert merged.exit_code == 0, merged.output
    with LatencyTable.open("profiles/all.db") as table:
        assert {entry.key for entry in table} == set(OPS[:4])
