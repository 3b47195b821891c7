"""Whole networks against their estimates: with a scripted engine the agreement is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeEngine, FakeSession

from latlut.engines.base import LayerTime
from latlut.errors import EngineError, MissingEntryError, TableError
from latlut.measure.plans import load_plan, plan_from_ops
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.table.space import space_of
from latlut.table.table import LatencyTable
from latlut.validation.explain import explain
from latlut.validation.validate import ValidationSettings, store, validate

PLAN = """
format = 1
input = "64x64"
[space]
name = "fasterseg"
layers = 4
widths = [4]
stem_head_widths = [4]
"""


@pytest.fixture
def table(tmp_path: Path, engine: FakeEngine):
    file = tmp_path / "small.toml"
    file.write_text(PLAN)
    path = tmp_path / "small.db"
    identity = identity_of(engine, "cpu", statistic="p10")
    with LatencyTable.create(path, identity) as opened:
        Sweep(opened, load_plan(file), engine, SweepSettings(passes=3)).run()
        yield opened


def test_a_device_that_adds_up_agrees_with_its_table(table: LatencyTable) -> None:
    engine = FakeEngine(noise=0.01, seed=5)
    settings = ValidationSettings(networks=12, rounds=2)
    found = validate(table, engine, space_of(table), settings)
    assert found.agreement.r > 0.99
    assert found.agreement.mape_percent < 2
    assert found.agreement.within_5 == 1
    assert found.readings.speed_factor == pytest.approx(1.0, abs=0.02)
    assert engine.closed == len(engine.opened)


def test_every_network_is_measured_in_every_round_with_fresh_sessions(
    table: LatencyTable,
) -> None:
    engine = FakeEngine()
    validate(table, engine, space_of(table), ValidationSettings(networks=4, rounds=3))
    networks = [name for name in engine.opened if name.startswith("network ")]
    assert sorted(networks) == sorted([f"network {i}" for i in range(4)] * 6)
    rounds = [tuple(networks[start : start + 4]) for start in range(0, 24, 4)]
    assert all(len(set(item)) == 4 for item in rounds)
    assert len(set(rounds)) > 1


def test_composition_effects_are_seen(table: LatencyTable) -> None:
    """Networks that take 1.2 times the sum: a bias of -17%, which correlation would hide."""
    engine = FakeEngine()
    engine.on_sample = lambda workload, runs: setattr(
        engine, "speed", lambda _: 1.2 if workload.nodes else 1.0
    )
    found = validate(table, engine, space_of(table), ValidationSettings(networks=8, rounds=1))
    assert found.agreement.r > 0.98
    assert found.agreement.bias_percent == pytest.approx(-100 / 6, abs=1)
    assert found.agreement.within_10 == 0
    assert abs(found.worst()[0].error_percent) > 15


def test_results_are_kept_in_the_table(table: LatencyTable) -> None:
    settings = ValidationSettings(networks=5, rounds=1)
    found = validate(table, FakeEngine(), space_of(table), settings)
    store(table, found, settings, space_of(table))
    (row,) = table.rows("SELECT * FROM validations")
    assert json.loads(row["agreement"])["r"] == found.agreement.r
    networks = table.rows("SELECT * FROM validation_networks ORDER BY position")
    assert [row["estimated_ms"] for row in networks] == [n.estimate.ms for n in found.networks]
    assert json.loads(networks[0]["architecture"])["space"] == "fasterseg"


def test_a_table_that_lacks_entries_says_which_before_measuring(table: LatencyTable) -> None:
    with table.writing() as db:
        db.execute("DELETE FROM entries WHERE op_spec_id IN"
                   " (SELECT id FROM op_specs WHERE kind = 'head')")  # fmt: skip
    engine = FakeEngine()
    with pytest.raises(MissingEntryError, match=r"(?s)lacks .*head.*latlut profile --table"):
        validate(table, engine, space_of(table), ValidationSettings(networks=3, rounds=1))
    assert engine.opened == []


def test_a_table_without_a_space_has_no_networks(tmp_path: Path, engine: FakeEngine) -> None:
    identity = identity_of(engine, "cpu", statistic="p10")
    with LatencyTable.create(tmp_path / "ops.db", identity) as opened:
        Sweep(opened, plan_from_ops(["conv 4->4 at 8x8"]), engine, SweepSettings(passes=1)).run()
        with pytest.raises(TableError, match="no run of this table swept a search space"):
            space_of(opened)


class LayeredSession(FakeSession):
    """A layer per operator, for as many networks as its engine shows."""

    def _layers(self, runs: int) -> tuple[LayerTime, ...]:
        engine = self.engine
        assert isinstance(engine, LayeredEngine)
        engine.views_left -= bool(self.workload.nodes)
        if engine.views_left < 0:
            raise EngineError("the profile is not to be had")
        names = [f"operators.{index}" for index, _ in enumerate(self.workload.specs)]
        return tuple(LayerTime(name, "Layer", 0.02, (name,)) for name in names)


class LayeredEngine(FakeEngine):
    """Scripted: shows the layers of its first networks only."""

    name = "fake-layered"
    title = "Fake engine with layers"
    session_type = LayeredSession

    def __init__(self, views: int) -> None:
        super().__init__()
        self.views_left = views


@pytest.mark.parametrize("views", [0, 2, 3])
def test_networks_are_explained_up_to_the_first_without_layers(
    table: LatencyTable, capsys: pytest.CaptureFixture[str], views: int
) -> None:
    where = space_of(table)
    found = validate(table, FakeEngine(), where, ValidationSettings(networks=4, rounds=1))
    said: list[str] = []
    shown = explain(table, LayeredEngine(views), found, where, count=3, on_refusal=said.append)
    assert len(shown) == views
    for one, item in zip(shown, found.worst(3), strict=False):
        assert f"{item.plain.ms:.4g} ms sum of entries" in one.label
        total = sum(effect.ms for effect in one.effects)
        assert total == pytest.approx(one.view.whole_ms.value - one.view.estimate.plain_ms)
    refusal = "not shown layer by layer: the profile is not to be had"
    assert any(refusal in text for text in said) == (views < 3)


def test_the_networks_are_the_same_for_the_same_seed(table: LatencyTable) -> None:
    where = space_of(table)
    first = validate(table, FakeEngine(), where, ValidationSettings(networks=4, rounds=1, seed=3))
    second = validate(
        table, FakeEngine(seed=9), where, ValidationSettings(networks=4, rounds=1, seed=3)
    )
    assert [n.architecture for n in first.networks] == [n.architecture for n in second.networks]
    estimates = np.array([[n.estimate.ms for n in item.networks] for item in (first, second)])
    assert (estimates[0] == estimates[1]).all()
