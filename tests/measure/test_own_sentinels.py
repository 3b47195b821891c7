"""A table that was measured beside operators of its own says so when they are not registered."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_engine import FakeEngine

from latlut.errors import SpecError
from latlut.measure.plans import Plan
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.measure.timing import TimingSettings
from latlut.measure.worklist import table_sentinels
from latlut.opspec import OpSpec
from latlut.table.table import LatencyTable

SPECS = tuple(OpSpec("conv", (8, 16, 16), 8 * n) for n in range(1, 5))


def test_sentinels_of_operators_that_are_not_registered_are_not_dropped_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine()
    with LatencyTable.create(
        tmp_path / "a.db", identity_of(engine, "cpu", statistic="p10")
    ) as table:
        timing = TimingSettings(min_samples=5, max_samples=20, min_time_s=0.0, time_cap_s=0.01)
        settings = SweepSettings(timing, passes=2, group=4)
        Sweep(table, Plan("p", SPECS), engine, settings).run()
        assert len(table_sentinels(table)) == settings.sentinels
        monkeypatch.setattr("latlut.measure.worklist.operator_kinds", lambda: ("skip",))
        with pytest.raises(SpecError, match="measured beside conv.*--operators FILE"):
            table_sentinels(table)
