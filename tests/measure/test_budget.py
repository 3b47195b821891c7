"""A sweep's budget: what is kept back, how groups shrink, and what is left for later."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_engine import OPS, FakeEngine

from latlut.measure import budget as module
from latlut.measure.budget import Budget
from latlut.measure.plans import Plan, plan_from_ops
from latlut.measure.stopwatch import Stopwatch
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.table.table import LatencyTable


class Clock:
    """In place of the module ``time``; stands still unless it is told otherwise."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("latlut.measure.stopwatch.time", found)
    monkeypatch.setattr(module, "time", found)
    return found


def test_groups_shrink_with_what_is_left(clock: Clock) -> None:
    budget = Budget(100.0, Stopwatch(), stored=0)
    assert budget.group_size(12) == 1  # the pace is not known yet
    with budget.visiting(1):
        clock.now += 5
    assert budget.group_size(12) == 12
    clock.now = 80
    assert budget.group_size(12) == 3
    clock.now = 99
    assert budget.group_size(12) == 1 and not budget.is_spent
    clock.now = 100
    assert budget.is_spent


def test_time_for_the_entries_is_kept_back(clock: Clock) -> None:
    budget = Budget(100.0, Stopwatch(), stored=50_000)
    assert budget.left_s == pytest.approx(80)
    with budget.summarising():
        clock.now += 5
    assert budget.left_s == pytest.approx(90)
    with budget.visiting(50_000):
        clock.now += 10
    assert budget.left_s == pytest.approx(75)


def test_time_to_end_with_a_large_plan_is_kept_back(clock: Clock) -> None:
    assert Budget(100.0, Stopwatch(), stored=0, planned=100_000).left_s == pytest.approx(97)


def test_without_a_limit_there_is_always_time(clock: Clock) -> None:
    budget = Budget(None, Stopwatch(), stored=10**9)
    clock.now = 1e9
    assert budget.group_size(12) == 12 and not budget.is_spent


def test_what_a_spec_computes_is_stored_when_it_is_measured(
    db_path: Path, plan: Plan, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits = iter([False, False, False])
    monkeypatch.setattr(Budget, "is_spent", property(lambda self: next(visits, True)))
    identity = identity_of(engine, "cpu", statistic="p10")
    settings = SweepSettings(budget_s=1e9, group=1)
    count = "SELECT count(macs) AS n FROM op_specs"
    with LatencyTable.create(db_path, identity) as table:
        assert Sweep(table, plan, engine, settings).run().status == "out of budget"
        assert table.rows(count) == [{"n": 3}]
        monkeypatch.undo()
        assert Sweep(table, plan, engine, SweepSettings()).run().status == "done"
        assert table.rows(count) == [{"n": len(OPS)}]
        assert all(entry.roofline_ms is None for entry in table)  # no peak figures were given


def test_an_op_spec_that_cannot_be_built_fails_by_name(db_path: Path, engine: FakeEngine) -> None:
    wrong = "skip 8->24 stride 1 at 16x16"  # an identity keeps its channels
    plan = plan_from_ops([*OPS, wrong])
    identity = identity_of(engine, "cpu", statistic="p10")
    with LatencyTable.create(db_path, identity) as table:
        summary = Sweep(table, plan, engine, SweepSettings(passes=2)).run()
        assert list(summary.failed) == [wrong]
        assert "keeps channels" in summary.failed[wrong]
        assert len(table) == len(OPS)
