"""What quickstart does between its steps: a calibration on half of the networks it measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_engine import FakeEngine, work_ns

from latlut.cli.quickstart import calibrated_on_half
from latlut.measure.plans import load_plan
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.operators.workloads import Workload
from latlut.pricing.calibration import stored
from latlut.table.space import space_of
from latlut.table.table import LatencyTable
from latlut.validation.validate import ValidationSettings, store, validate

PLAN = """
format = 1
input = "64x64"
[space]
name = "fasterseg"
layers = 4
widths = [4, 6]
stem_head_widths = [4]
"""


def composed_ns(workload: Workload) -> float:
    """Networks take a fifth more than the sum of their operators."""
    return work_ns(workload) * (1.2 if workload.nodes else 1.0)


def test_half_of_the_networks_judges_what_the_other_half_taught(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.toml").write_text(PLAN)
    engine = FakeEngine()
    engine.work_ns = composed_ns
    identity = identity_of(engine, "cpu", statistic="p10")
    with LatencyTable.create(tmp_path / "t.db", identity) as table:
        plan = load_plan(tmp_path / "small.toml")
        Sweep(table, plan, engine, SweepSettings(passes=3)).run()
        where, settings = space_of(table), ValidationSettings(networks=24, rounds=1)
        found = validate(table, engine, where, settings)
        number = store(table, found, settings, where)
        assert found.scores is None

        with table.writing() as db:
            db.execute("UPDATE validations SET cpu_share = 0.5")
        assert calibrated_on_half(table, found, number) is found
        assert stored(table) is None
        assert "took 50% of the CPU" in capsys.readouterr().out

        with table.writing() as db:
            db.execute("UPDATE validations SET cpu_share = NULL")
        half = calibrated_on_half(table, found, number)
        assert stored(table) is not None
    assert (len(half.judged), len(half.networks)) == (12, 24)
    assert half.scores is not None
    assert half.scores.plain.mape_percent > 10 > 5 > half.scores.calibrated.mape_percent
    assert half.scores.covered >= 10
