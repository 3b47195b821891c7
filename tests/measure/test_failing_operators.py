"""Operators of one's own that raise: named, recorded as failed, and the sweep goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fake_engine import FakeEngine
from torch import nn

from latlut.cli import main
from latlut.errors import OperatorError
from latlut.measure.plans import Plan
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.measure.timing import TimingSettings
from latlut.operators import registry
from latlut.operators.building import build, cost
from latlut.operators.registry import register
from latlut.opspec import OpSpec
from latlut.table.table import LatencyTable


class Odd(nn.Module):
    """Raises when it runs, or returns no tensor."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> object:
        if self.kind == "odd_forward":
            raise KeyError("no such weight")
        if self.kind == "odd_exit":
            sys.exit(0)
        return {"x": x} if self.kind == "odd_dict" else x[:, :1]


@pytest.fixture
def odd_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY), raising=False)
    for kind in ("odd_builder", "odd_forward", "odd_exit", "odd_dict", "odd_shape", "odd_type"):

        @register(kind)
        def made(spec: OpSpec, kind: str = kind) -> nn.Module:
            if kind == "odd_builder":
                raise ZeroDivisionError("by zero")
            return 3 if kind == "odd_type" else Odd(kind)  # type: ignore[return-value]


REASONS = {
    "odd_builder": "its builder raised ZeroDivisionError: by zero",
    "odd_forward": "cannot be run: KeyError: 'no such weight'",
    "odd_exit": "cannot be run: SystemExit: 0",
    "odd_dict": "gives dict, expected one tensor",
    "odd_shape": "gives",
    "odd_type": "the builder returned int, not a Module",
}


@pytest.mark.usefixtures("odd_operators")
@pytest.mark.parametrize("kind", REASONS)
def test_what_an_operator_raises_is_one_message_that_names_it(kind: str) -> None:
    spec = OpSpec(kind, (4, 8, 8), 4)
    for use in (build, cost):
        with pytest.raises(OperatorError) as caught:
            use(spec)
        assert str(caught.value).startswith(spec.key) and REASONS[kind] in str(caught.value)


@pytest.mark.usefixtures("odd_operators")
def test_a_sweep_records_them_as_failed_and_goes_on(tmp_path: Path) -> None:
    engine = FakeEngine()
    good = tuple(OpSpec("conv", (4, 8, 8), 4 * n) for n in range(1, 4))
    odd = tuple(OpSpec(kind, (4, 8, 8), 4) for kind in REASONS)
    with LatencyTable.create(
        tmp_path / "a.db", identity_of(engine, "cpu", statistic="p10")
    ) as table:
        timing = TimingSettings(min_samples=5, max_samples=20, min_time_s=0.0, time_cap_s=0.01)
        plan = Plan("p", good + odd)
        summary = Sweep(table, plan, engine, SweepSettings(timing, passes=2)).run()
        assert set(summary.failed) == {spec.key for spec in odd}
        assert all(spec in table for spec in good)
        for spec in odd:
            assert REASONS[spec.kind] in summary.failed[spec.key]


def test_the_command_says_it_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "ops.py").write_text(
        "from latlut.operators import register\n"
        "@register('mine_raises')\n"
        "def build(spec):\n    raise ZeroDivisionError('by zero')\n"
    )
    arguments = ["profile", "--cpu", "--table", str(tmp_path / "t.db"), "--passes", "1", "--quiet"]
    arguments += ["--op", "mine_raises 4->4 at 8x8", "--op", "conv 4->4 at 8x8"]
    found = CliRunner().invoke(main, [*arguments, "--operators", str(tmp_path / "ops.py")])
    assert found.exit_code == 1, found.output
    assert "failed: mine_raises 4->4" in found.output and "by zero" in found.output
    assert "1 of 2 operator configurations have an entry" in found.output
