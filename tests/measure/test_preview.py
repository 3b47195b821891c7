"""``profile --dry-run``: what would be measured and how long it takes, with nothing written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_engine import OPS, FakeEngine

from latlut.cli import main
from latlut.errors import IdentityError
from latlut.measure.plans import Plan, plan_from_ops
from latlut.measure.preview import TRIED, preview
from latlut.measure.sweep_settings import SweepSettings, identity_of


def test_what_the_table_lacks_is_told(measured: Path, plan: Plan, engine: FakeEngine) -> None:
    identity = identity_of(engine, "cpu", statistic="p10")
    more = plan_from_ops([*OPS, "conv 8->24 stride 1 at 16x16", "conv_2x 8->24 stride 1 at 16x16"])
    found = preview(more, engine, identity, measured, SweepSettings())
    assert sorted(found.missing) == [spec.key for spec in sorted(more.specs[-2:], key=str)]
    assert dict(found.by_kind) == {"conv": 1, "conv_2x": 1}
    assert (found.readings, found.reused, found.tried) == (10, 5 * len(OPS), 2)
    assert found.seconds is not None and found.seconds > 0
    assert preview(plan, engine, identity, measured, SweepSettings()).seconds == 0


def test_without_a_table_all_is_missing_and_none_is_made(
    db_path: Path, plan: Plan, engine: FakeEngine
) -> None:
    identity = identity_of(engine, "cpu", statistic="p10")
    found = preview(plan, engine, identity, db_path, SweepSettings(passes=3))
    assert (len(found.missing), found.readings) == (len(OPS), 3 * len(OPS))
    assert found.tried == min(TRIED, len(OPS))
    assert not db_path.exists()


def test_op_specs_that_cannot_be_run_give_no_time(
    db_path: Path, plan: Plan, engine: FakeEngine
) -> None:
    engine.rejects.update(OPS)
    identity = identity_of(engine, "cpu", statistic="p10")
    found = preview(plan, engine, identity, db_path, SweepSettings())
    assert found.seconds is None and found.tried == 0
    assert len(found.missing) == len(OPS)


def test_a_table_of_another_identity_is_refused(
    measured: Path, plan: Plan, engine: FakeEngine
) -> None:
    identity = replace(identity_of(engine, "cpu", statistic="p10"), engine_version="other")
    with pytest.raises(IdentityError, match="engine_version"):
        preview(plan, engine, identity, measured, SweepSettings())


def test_the_command_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    words = ["profile", "--cpu", "--engine", "pytorch", "--op", OPS[0], "--table", str(path)]
    found = CliRunner().invoke(main, [*words, "--dry-run", "--json"])
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert told["missing"] == [OPS[0]] and told["readings"] == 5
    assert list(tmp_path.iterdir()) == []
    assert "about" in CliRunner().invoke(main, [*words, "--dry-run"]).stdout
