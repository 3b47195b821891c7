"""ExpectedLatency: a dot product per layer, for spaces of any shape."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from checkout import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tables import invented_ms, make_table

from latlut.errors import MissingEntryError, SpecError
from latlut.opspec import OpSpec
from latlut.penalty import ExpectedLatency

CONV = OpSpec("conv", (8, 16, 16), 8)
WIDER = OpSpec("conv", (8, 16, 16), 8, kernel_size=5)
DOWN = OpSpec("conv", (8, 16, 16), 16, stride=2)
BLOCK = (OpSpec("conv", (8, 16, 16), 24, kernel_size=1), OpSpec("conv", (24, 16, 16), 8))


@st.composite
def layers_and_logits(draw):
    row = st.lists(st.floats(0, 50), min_size=1, max_size=4)
    layers = draw(st.lists(row, min_size=1, max_size=4))
    counts = map(len, layers)
    logits = [draw(st.lists(st.floats(-5, 5), min_size=n, max_size=n)) for n in counts]
    return layers, logits


@settings(deadline=None)
@given(layers_and_logits())
def test_expectation_is_the_mean_over_all_networks(drawn) -> None:
    layers, logits = drawn
    module = ExpectedLatency.from_latencies_ms(layers, fixed_ms=2.0).double()
    shares = [np.exp(row) / np.exp(row).sum() for row in map(np.array, logits)]
    mean = 0.0
    for picks in product(*(range(len(layer)) for layer in layers)):
        weight = np.prod([share[k] for share, k in zip(shares, picks, strict=True)])
        mean += weight * (2.0 + sum(layer[k] for layer, k in zip(layers, picks, strict=True)))
    found = module([torch.tensor(row, dtype=torch.double) for row in logits])
    assert found.item() == pytest.approx(mean, rel=1e-5)


def test_a_table_prices_candidates_blocks_and_identities(tmp_path: Path) -> None:
    layers = [[CONV, WIDER, None], [BLOCK, CONV], [DOWN]]
    with make_table(tmp_path / "t.db", [CONV, WIDER, DOWN, *BLOCK]) as table:
        module = ExpectedLatency(layers, table, fixed=[CONV, CONV])
    block = sum(map(invented_ms, BLOCK))
    expected = [
        [invented_ms(CONV), invented_ms(WIDER), 0.0],
        [block, invented_ms(CONV), 0.0],
        [invented_ms(DOWN), 0.0, 0.0],
    ]
    assert module.latency_ms.tolist() == [pytest.approx(row) for row in expected]
    assert module.fixed_ms.item() == pytest.approx(2 * invented_ms(CONV))
    uniform = module([torch.zeros(3), torch.zeros(2), torch.zeros(1)])
    mean = sum(np.mean(row[:count]) for row, count in zip(expected, (3, 2, 1), strict=True))
    assert uniform.item() == pytest.approx(mean + 2 * invented_ms(CONV))


def test_one_tensor_and_a_list_say_the_same_and_padding_is_not_read() -> None:
    module = ExpectedLatency.from_latencies_ms([[1.0, 2.0, 4.0], [3.0], [5.0, 6.0]])
    rows = [torch.randn(3), torch.randn(1), torch.randn(2)]
    padded = torch.full((3, 3), float("nan"))
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    assert torch.equal(module(rows), module(padded))


def test_gradient_equals_finite_differences_and_padding_gets_none() -> None:
    module = ExpectedLatency.from_latencies_ms([[1.0, 2.0, 4.0], [5.0, 3.0]]).double()
    logits = torch.randn(2, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(module, (logits,))
    module(logits).backward()
    assert (logits.grad[0] != 0).all()
    assert (logits.grad[1, :2] != 0).all()
    assert logits.grad[1, 2] == 0


def test_buffers_move_and_are_kept_with_the_module() -> None:
    module = ExpectedLatency.from_latencies_ms([[1.0, 2.0]], fixed_ms=1.5)
    assert set(module.state_dict()) == {"latency_ms", "fixed_ms"}
    assert module.half()([torch.zeros(2)]).dtype == torch.float16
    assert not list(module.parameters())


def test_all_missing_entries_are_listed_with_one_command(tmp_path: Path) -> None:
    with (
        make_table(tmp_path / "t.db", [CONV]) as table,
        pytest.raises(MissingEntryError) as caught,
    ):
        ExpectedLatency([[CONV, WIDER], [DOWN, None]], table)
    assert str(caught.value) == (
        f"{tmp_path / 't.db'} lacks 2 entries:\n  {WIDER}\n  {DOWN}\n"
        f"add them with: latlut profile --table {tmp_path / 't.db'} --op '{WIDER}' --op '{DOWN}'"
    )


def test_many_missing_entries_are_counted(tmp_path: Path) -> None:
    specs = [OpSpec("conv", (8, 16, 16), out) for out in range(1, 31)]
    with (
        make_table(tmp_path / "t.db", [CONV]) as table,
        pytest.raises(MissingEntryError, match=r"lacks 29 entries:[^&]*  and 19 more"),
    ):
        ExpectedLatency([specs], table)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "no layers"),
        ([[1.0], []], "layer 1 without candidates"),
        ([[1.0, float("inf")]], "finite number"),
    ],
)
def test_latencies_that_are_none(layers, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ExpectedLatency.from_latencies_ms(layers)


def test_logits_of_another_shape_are_refused() -> None:
    module = ExpectedLatency.from_latencies_ms([[1.0, 2.0], [3.0]])
    with pytest.raises(SpecError, match=r"lengths \[2, 1\]; received shapes \[\(2,\), \(2,\)\]"):
        module([torch.zeros(2), torch.zeros(2)])
    with pytest.raises(SpecError, match=r"shape \(2, 2\), received \(2, 3\)"):
        module(torch.zeros(2, 3))


def test_the_example_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "penalty.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert blocks
    shown = re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    scope: dict[str, object] = {}
    exec(compile(blocks[0], "docs/penalty.md", "exec"), scope)
    assert capsys.readouterr().out == shown[0]
