"""The verdict on a table: three levels, limits that can be set, and never OK of what is far off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_engine import FakeEngine, work_ns

from latlut.cli import main
from latlut.errors import SpecError
from latlut.measure.plans import load_plan
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.operators.workloads import Workload
from latlut.table.space import space_of
from latlut.table.table import LatencyTable
from latlut.validation.validate import ValidationSettings, store, validate
from latlut.validation.verdict import Level, Limits, check

PLAN = """
format = 1
input = "64x64"
[space]
name = "fasterseg"
layers = 3
widths = [4]
stem_head_widths = [4]
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of a small space, without a validation."""
    folder = tmp_path_factory.mktemp("verdict")
    (folder / "small.toml").write_text(PLAN)
    engine = FakeEngine()
    identity = identity_of(engine, "cpu", statistic="p10")
    with LatencyTable.create(folder / "made.db", identity) as table:
        Sweep(table, load_plan(folder / "small.toml"), engine, SweepSettings(passes=3)).run()
    return folder / "made.db"


@pytest.fixture
def table(swept: Path, tmp_path: Path):
    path = tmp_path / "made.db"
    path.write_bytes(swept.read_bytes())
    with LatencyTable.open(path, is_writable=True) as opened:
        yield opened


def validated(table: LatencyTable, factor: float, count: int = 4) -> None:
    """Networks take ``factor`` times the sum of their operators."""
    engine = FakeEngine(seed=3)

    def composed_ns(workload: Workload) -> float:
        return work_ns(workload) * (factor if workload.nodes else 1.0)

    engine.work_ns = composed_ns
    where, settings = space_of(table), ValidationSettings(networks=count, rounds=1)
    store(table, validate(table, engine, where, settings), settings, where)


def set_agreement(table: LatencyTable, **values: float) -> None:
    """What the latest validation says of the machine."""
    with table.writing() as db:
        if "cpu_share" in values:
            db.execute(
                "UPDATE validations SET cpu_share = ? WHERE id = (SELECT max(id) FROM validations)",
                [values.pop("cpu_share")],
            )
        for name, value in values.items():
            db.execute(
                "UPDATE validations SET agreement = json_set(agreement, ?, ?)"
                " WHERE id = (SELECT max(id) FROM validations)",
                [f"$.{name}", value],
            )


@pytest.mark.parametrize(
    ("factor", "level"),
    [(1.0, Level.OK), (1.08, Level.CAUTION), (1.82, Level.NOT_RELIABLE)],
)
def test_the_error_of_networks_decides(table: LatencyTable, factor: float, level: Level) -> None:
    validated(table, factor)
    verdict = check(table)
    assert verdict.level is level
    assert verdict.network_percent == pytest.approx(100 * abs(1 / factor - 1), abs=1.5)
    assert verdict.sentence.startswith(f"{level.title}: networks estimated to ±")


def test_the_limits_can_be_set(table: LatencyTable) -> None:
    validated(table, 1.08)
    assert check(table, limits=Limits(9, 12)).level is Level.OK
    assert check(table, limits=Limits(0.01, 2)).level is Level.NOT_RELIABLE
    with pytest.raises(SpecError, match=r"limit of OK, 5%.*CAUTION, 2%"):
        Limits(5, 2)


def test_wide_entries_of_a_table_without_a_validation_are_not_reliable(
    table: LatencyTable,
) -> None:
    with table.writing() as db:
        db.execute("UPDATE entries SET ci_low_ms = 0.18 * latency_ms, ci_high_ms = 1.82*latency_ms")
    verdict = check(table)
    assert verdict.level is Level.NOT_RELIABLE
    assert "entries accurate to ±82.0% (95%)" in verdict.sentence
    validated(table, 1.0)  # sums of them are right all the same
    assert check(table).level is Level.CAUTION


def test_disturbed_entries_are_not_reliable_until_networks_show_what_their_sums_are_worth(
    table: LatencyTable,
) -> None:
    with table.writing() as db:
        db.execute("UPDATE entries SET warnings = 'disturbed while measured' WHERE rowid % 5 = 0")
    verdict = check(table)
    assert verdict.level is Level.NOT_RELIABLE
    assert "were taken while disturbed" in verdict.sentence
    validated(table, 1.0)
    assert check(table).level is Level.CAUTION
    validated(table, 1.82)
    assert check(table).level is Level.NOT_RELIABLE


def test_a_table_that_no_network_was_measured_against_is_not_ok(table: LatencyTable) -> None:
    verdict = check(table)
    assert verdict.level is Level.CAUTION
    assert "no network was measured against it: latlut validate --table" in verdict.sentence


@pytest.mark.parametrize(
    ("values", "reason"),
    [({"cpu_share": 0.4}, "took 60% of the CPU"), ({"r12": 0.3}, "correlate by 0.300")],
)
def test_a_disturbed_validation_does_not_decide(
    table: LatencyTable, values: dict[str, float], reason: str
) -> None:
    validated(table, 1.5, count=5)
    set_agreement(table, **values)
    verdict = check(table)
    assert (verdict.level, verdict.network_percent) == (Level.CAUTION, None)
    assert reason in verdict.sentence
    assert "--wait" in verdict.sentence


def test_the_latest_undisturbed_validation_decides(table: LatencyTable) -> None:
    validated(table, 1.0, count=5)
    validated(table, 1.9, count=6)
    set_agreement(table, cpu_share=0.5)
    verdict = check(table)
    assert verdict.level is Level.OK
    assert "validation 1" in verdict.sentence


def test_the_command_exits_with_1_where_the_table_is_not_reliable(table: LatencyTable) -> None:
    validated(table, 1.08)
    words = ["table", "check", str(table.path)]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[0] == f"{table.path}: CAUTION"
    assert "OK up to ±5%, CAUTION up to ±10%, NOT RELIABLE above" in found.stdout
    found = CliRunner().invoke(main, [*words, "--ok", "1%", "--caution", "2%", "--json"])
    assert found.exit_code == 1
    shown = json.loads(found.stdout)
    assert (shown["verdict"], shown["is_reliable"]) == ("NOT RELIABLE", False)
    assert shown["limits"] == {"ok_percent": 1.0, "caution_percent": 2.0}
    assert CliRunner().invoke(main, [*words, "--ok", "9%", "--caution", "2%"]).exit_code == 2
