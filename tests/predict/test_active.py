"""Active sweeps: they end as asked, go on where they were, and predict what they leave out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeEngine

from latlut.errors import PredictionError
from latlut.machine.targets import cpu_target
from latlut.measure.active import ActiveSettings, design_of, sweep_actively
from latlut.measure.plans import Plan, load_plan
from latlut.measure.profile import profile
from latlut.measure.sweep_report import SweepSummary
from latlut.measure.sweep_settings import SweepSettings
from latlut.measure.timing import TimingSettings
from latlut.opspec import OpSpec
from latlut.predict.design import Design, counts_of
from latlut.table.table import LatencyTable

SETTINGS = SweepSettings(TimingSettings(max_samples=20, min_samples=8), passes=1)
SPECS = tuple(
    OpSpec(kind, (channels, side, 2 * side), out)
    for kind in ("conv", "zoomed_conv")
    for channels in (8, 16, 24, 32)
    for out in (8, 16, 32)
    for side in (4, 8, 16)
)


class Sweeper:
    """Sweeps through a scripted engine, and notes what it was asked for."""

    def __init__(self, path: Path) -> None:
        self.path, self.asked = path, []  # type: ignore[var-annotated]
        self.engine = FakeEngine(noise=0.005)

    def __call__(self, plan: Plan, left_s: float | None) -> SweepSummary:
        self.asked.append(plan.specs)
        target = cpu_target(1)
        return profile(plan, self.engine, target, self.path, replace(SETTINGS, budget_s=left_s))


def test_a_fraction_is_measured_and_the_rest_predicted(tmp_path: Path) -> None:
    plan, path = Plan("p", SPECS), tmp_path / "t.db"
    sweep = Sweeper(path)
    found = sweep_actively(plan, path, ActiveSettings(0.5), sweep)
    assert (found.measured, found.reason) == (36, "the part is measured")
    assert found.predicted + len(found.left_out) == 36
    assert found.predicted > 30
    assert found.network_half_width is None
    with LatencyTable.open(path) as table:
        assert table.predicted_count == found.predicted
        errors = []
        for spec in SPECS:
            if spec in table and table.lookup(spec).is_predicted:
                channels, height, width = spec.output
                true = 2e-2 + 5e-8 * spec.in_channels * channels * height * width
                errors.append(abs(table.lookup(spec).latency_ms / true - 1))
    assert np.median(errors) < 0.05
    again = sweep_actively(plan, path, ActiveSettings(0.5), sweep)
    assert (again.measured, again.predicted) == (36, found.predicted)
    assert again.summary.measured == 0
    more = sweep_actively(plan, path, ActiveSettings(0.7), sweep)
    assert more.measured == 51


def test_it_ends_when_networks_are_known_well_enough(tmp_path: Path) -> None:
    plan, path = load_plan("tiny"), tmp_path / "t.db"
    said: list[str] = []
    latency = {spec: 0.1 + 1e-4 * spec.in_channels * spec.out_channels for spec in plan.specs}

    def sweep(part: Plan, left_s: float | None) -> SweepSummary:
        from small_tables import make_table

        if path.exists():
            path.unlink()
        make_table(path, part.specs, latency.__getitem__).close()
        return SweepSummary("done", seconds={"total": 1.0})

    found = sweep_actively(plan, path, ActiveSettings(until=0.05), sweep, say=said.append)
    assert found.reason == "the interval is as narrow as asked"
    assert found.network_half_width is not None and found.network_half_width <= 0.05
    assert found.measured < len(plan.specs)
    assert said and "network's 95% interval" in said[-1]


def test_a_spent_budget_ends_it(tmp_path: Path) -> None:
    plan, path = Plan("p", SPECS), tmp_path / "t.db"
    sweep = Sweeper(path)

    def slow(part: Plan, left_s: float | None) -> SweepSummary:
        return replace(sweep(part, None), status="out of budget")

    found = sweep_actively(plan, path, ActiveSettings(0.9), slow, budget_s=100.0)
    assert found.reason == "the budget is spent"
    assert len(sweep.asked) == 1 and found.predicted


def test_too_small_a_part_is_refused(tmp_path: Path) -> None:
    plan = Plan("p", SPECS)
    with pytest.raises(PredictionError, match="--fraction"):
        sweep_actively(plan, tmp_path / "t.db", ActiveSettings(0.1), Sweeper(tmp_path / "t.db"))
    with pytest.raises(PredictionError, match="too small"):
        design_of(Plan("few", SPECS[:10]), 0)
    pieces = replace(plan, cut="work")
    with pytest.raises(PredictionError, match="pieces of ONNX files are not predicted"):
        sweep_actively(pieces, tmp_path / "t.db", ActiveSettings(0.5), Sweeper(tmp_path / "t.db"))
    with pytest.raises(PredictionError, match="between 0 and 1"):
        ActiveSettings(fraction=1.5)


def test_op_specs_that_networks_need_are_chosen_first() -> None:
    """Half of the plan is in no network: what is chosen by the model comes from the other half."""
    used = SPECS[:36]
    counts = counts_of(SPECS, [used[i::3] for i in range(3)])
    latency = {s: 0.02 + 1e-6 * s.in_channels * s.out_channels * s.out_size[0] ** 2 for s in SPECS}
    shares = []
    for weights in (counts, np.zeros((0, len(SPECS)))):
        design = Design(SPECS, weights)
        known = {s: latency[s] for s in design.next({}, 30, 60, None)}
        model = design.fit(known, 60)
        taken = [design.specs.index(s) for s in known]
        chosen = design._informative(12, taken, known, model)
        shares.append(np.mean([place < 36 for place in chosen]))
    assert shares[0] > shares[1]
