"""Outputs that are meant to differ: what the refusal says, and what is measured without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_engine import OPS, FakeEngine

from latlut.errors import ParityError
from latlut.measure.layers import layer_view
from latlut.measure.networks import NetworkTimer
from latlut.measure.plans import Plan
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.measure.timing import TimingSettings
from latlut.operators.workloads import Workload
from latlut.opspec import IMAGE, Node, OpSpec
from latlut.table.table import LatencyTable
from latlut.validation.verdict import check


@pytest.mark.parametrize("is_compared", [True, False])
def test_a_sweep_times_what_differs_when_it_is_told_to(
    db_path: Path, plan: Plan, engine: FakeEngine, is_compared: bool
) -> None:
    engine.wrong.add(OPS[0])
    engine.is_compared = is_compared
    with LatencyTable.create(db_path, identity_of(engine, "cpu", statistic="p10")) as table:
        summary = Sweep(table, plan, engine, SweepSettings(passes=2)).run()
        compared = table.rows("SELECT count(parity) AS n FROM measurements")[0]["n"]
        remarks = " ".join(reason.text for reason in check(table, {}).reasons)
        if is_compared:
            assert "with --unchecked it is timed all the same" in summary.failed[OPS[0]]
            assert compared and "--unchecked" not in remarks
        else:
            assert not summary.failed and len(table) == len(OPS)
            assert compared == 0
            assert "compared with nothing in run 1 (--unchecked)" in remarks


@pytest.mark.parametrize("is_compared", [True, False])
def test_networks_and_layers_as_well(measured: Path, engine: FakeEngine, is_compared: bool) -> None:
    spec = OpSpec.parse(OPS[0])
    nodes = [Node("a", spec, (IMAGE,))]
    network = Workload.from_nodes(nodes, "n")
    engine.wrong.update({"n", "a network of 1 operators"})
    engine.is_compared = is_compared
    timing = TimingSettings(min_samples=1, max_samples=2, min_time_s=0, time_cap_s=0.001)

    def times() -> None:
        NetworkTimer(engine, timing, {}).passes([network], rounds=1, seed=0)

    def layers() -> None:
        with LatencyTable.open(measured) as table:
            layer_view(engine, nodes, table)

    for run in (times, layers):
        try:
            run()
        except ParityError as error:
            assert is_compared and "--unchecked" in str(error)
        except Exception as error:
            assert "no per-layer view" in str(error)
            assert not is_compared
        else:
            assert not is_compared
