"""Calibrations of pieces of ONNX files: what starts and weights cost is found, and is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_tables import make_table

from latlut.errors import CalibrationError
from latlut.operators import subgraph_store
from latlut.operators.onnx_cutting import by_work, cut
from latlut.operators.onnx_files import read_onnx
from latlut.opspec import OpSpec
from latlut.pricing import calibration as calibrations
from latlut.pricing.calibration import CALL, NETWORK, WEIGHTS, added_amounts
from latlut.pricing.estimator import Estimate, Term, calibrated, estimate
from latlut.spaces import FasterSegSpace
from latlut.table.subgraphs import keep_graphs
from latlut.validation.fitting import fit
from latlut.validation.measured import MeasuredNetwork

#: What a run's start adds to every entry, and what a network pays for a megabyte, milliseconds.
CALL_MS, WEIGHTS_MS = 0.006, 0.03
ANY_NETWORK = FasterSegSpace().sample(0)


def pieces(channels: int) -> tuple[OpSpec, ...]:
    """A convolution and a product of so many channels."""
    draw = np.random.default_rng(0)
    weights = {
        "w": draw.standard_normal((channels, channels, 3, 3), dtype=np.float32),
        "m": draw.standard_normal((8, 8), dtype=np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("MatMul", ["a", "m"], ["b"]),
            helper.make_node("Conv", ["b", "w"], ["y"], pads=[1, 1, 1, 1]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, channels, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return cut(read_onnx(model.SerializeToString()), by_work).op_specs()


SPECS = {spec for channels in (8, 64, 128, 256) for spec in pieces(channels)}


def estimate_of(terms: Sequence[Term]) -> Estimate:
    """Of these terms, known exactly."""
    ms = sum(term.count * term.latency_ms for term in terms)
    return Estimate(ms, ms, ms, tuple(terms), (), plain_ms=ms, entries_sd_ms=0.0)


def network(rng: np.random.Generator) -> MeasuredNetwork:
    """Executions of pieces, and what a network of them would take."""
    terms, taken_ms = [], 0.2
    for spec in sorted(SPECS, key=str):
        amounts = added_amounts(spec)
        count = int(rng.integers(1, 12))
        inside_ms = 0.01 + 0.002 * spec.out_channels
        terms.append(Term(spec, count, inside_ms + CALL_MS, (spec.key,), "measured"))
        taken_ms += count * (inside_ms + WEIGHTS_MS * amounts[WEIGHTS])
    plain = estimate_of(terms)
    first, second = taken_ms * (1 + 0.002 * rng.standard_normal(2))
    return MeasuredNetwork(ANY_NETWORK, plain, first, second, validation_id=1, position=0)


def test_starts_and_weights_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    networks = [network(rng) for _ in range(60)]
    own = fit(networks[:40])
    values = dict(zip(own.effects, own.values, strict=True))
    assert values[WEIGHTS] == pytest.approx(WEIGHTS_MS, rel=0.2)
    assert values[CALL] < 0
    assert not any(name.startswith("map ") for name in own.effects)
    assert own.effects[-1] == NETWORK
    for item in networks[40:]:
        found = calibrated(item.plain, own)
        assert found.ms == pytest.approx(item.measured_ms, rel=0.02)
        assert found.ms == pytest.approx(
            found.constant_ms + sum(term.total_ms for term in found.terms)
        )


def test_a_network_of_starts_alone_takes_some_time() -> None:
    rng = np.random.default_rng(2)
    own = fit([network(rng) for _ in range(40)])
    (spec, *_) = SPECS
    tiny = Term(spec, 1000, CALL_MS / 10, (spec.key,), "measured")
    assert calibrated(estimate_of([tiny]), own).ms > 0


def test_weights_count_where_the_table_alone_knows_the_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    own = fit([network(rng) for _ in range(40)])
    specs = sorted(SPECS, key=str)
    with make_table(tmp_path / "t.db", specs, lambda spec: 0.02) as table:
        keep_graphs(table, specs)
        calibrations.store(table, own, {}, 0, [])
        there = estimate(specs, table).ms
        monkeypatch.setattr(subgraph_store, "_STORE", {})
        assert estimate(specs, table).ms == there


def test_a_calibration_of_pieces_by_the_sizes_of_their_maps_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    own = fit([network(rng) for _ in range(40)])
    old = replace(own, effects=("subgraph_conv at 8x8", *own.effects[1:]))
    with make_table(tmp_path / "t.db", SPECS, lambda spec: 0.02) as table:
        calibrations.store(table, old, {}, 0, [])
        with pytest.raises(CalibrationError, match=r"(?s)cannot apply.*latlut calibrate"):
            estimate(sorted(SPECS, key=str), table)
