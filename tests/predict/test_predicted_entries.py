"""Predicted entries: right within their intervals, never taken for measured ones."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_tables import make_table

from latlut.cli import main
from latlut.cli.output import predicted_text
from latlut.errors import PredictionError
from latlut.opspec import OpSpec
from latlut.predict.conformal import quantile_of, quantiles_by_kind
from latlut.predict.predictor import Kernel, Predictor
from latlut.pricing.estimator import estimate
from latlut.pricing.predicting import (
    fit_predictor,
    predict_entries,
    store_predictions,
    stored_predictor,
)
from latlut.pricing.transferring import KnownDevices
from latlut.table.diff import diff
from latlut.table.import_export import export_file, import_file
from latlut.table.merging import merge
from latlut.table.table import LatencyTable
from latlut.validation.verdict import check

KINDS = {"conv": 1.0, "conv_2x": 2.0, "zoomed_conv": 0.4}
SPECS = [
    OpSpec(kind, (channels, side, 2 * side), out)
    for kind in KINDS
    for channels in (32, 48, 64, 96, 128)
    for out in (32, 64, 96, 128)
    for side in (8, 16, 32)
]


def smooth_ms(spec: OpSpec) -> float:
    """A latency that is a product of powers of the shapes, with a noise of 2%."""
    noise = random.Random(spec.key).gauss(0, 0.02)
    pixels = spec.out_size[0] * spec.out_size[1]
    size = spec.in_channels**0.9 * spec.out_channels * pixels
    return float(KINDS[spec.kind] * 1e-6 * size * np.exp(noise))


def split(seed: int, count: int = 60) -> tuple[list[OpSpec], list[OpSpec]]:
    """Some op specs, and the others."""
    order = np.random.default_rng(seed).permutation(len(SPECS))
    return [SPECS[i] for i in order[:count]], [SPECS[i] for i in order[count:]]


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    known, _ = split(0)
    return make_table(tmp_path / "t.db", known, smooth_ms)


def predicted(table: LatencyTable) -> LatencyTable:
    predictor = fit_predictor(table)
    assert store_predictions(table, predict_entries(table, SPECS, predictor)) == 120
    return table


def test_intervals_hold_what_they_say() -> None:
    inside, errors = [], []
    for seed in range(4):
        known, others = split(seed)
        model = Predictor.fit(known, [smooth_ms(spec) for spec in known])
        found = model.predict(others)
        truth = np.array([smooth_ms(spec) for spec in others])
        inside += ((found.ci_low_ms <= truth) & (truth <= found.ci_high_ms)).tolist()
        errors += np.abs(found.latency_ms / truth - 1).tolist()
    assert 0.90 < np.mean(inside) < 0.995
    assert np.median(errors) < 0.03


def test_quantiles_cover_new_scores_as_often_as_they_say() -> None:
    draw = np.random.default_rng(1).exponential
    hits = [draw() <= quantile_of(draw(size=39)) for _ in range(4000)]
    assert abs(np.mean(hits) - 0.95) < 0.012
    assert quantile_of(np.ones(18)) == np.inf
    found = quantiles_by_kind([1.0] * 40 + [5.0] * 5, ["a"] * 40 + ["b"] * 5)
    assert found["a"] == 1.0 and found[""] == 5.0 and "b" not in found


def test_left_out_errors_are_those_of_models_without_the_entry() -> None:
    known, _ = split(3, 25)
    model = Predictor.fit(known, [smooth_ms(spec) for spec in known])
    error, sd = model.left_out
    mean, spread = model._level
    kernel = model.kernel.between(model._known, model._known)
    rest = np.arange(1, 25)
    covariance = kernel[np.ix_(rest, rest)] + model.kernel.noise * np.eye(24)
    values = (np.array(model.targets) - mean) / spread
    weights = np.linalg.solve(covariance, kernel[rest, 0])
    assert error[0] == pytest.approx(spread * (values[0] - weights @ values[rest]), rel=1e-6)
    variance = kernel[0, 0] + model.kernel.noise - weights @ kernel[rest, 0]
    assert sd[0] == pytest.approx(spread * variance**0.5, rel=1e-6)


def test_a_stored_predictor_predicts_the_same(table: LatencyTable) -> None:
    predicted(table)
    _, others = split(0)
    entries = [table.lookup(spec) for spec in others]
    again = stored_predictor(table).predict(others)
    np.testing.assert_allclose(again.latency_ms, [e.latency_ms for e in entries], rtol=1e-9)
    with pytest.raises(PredictionError, match="not a predictor"):
        Predictor.from_json('{"keys": []}')


def test_predictions_are_never_taken_for_measured(table: LatencyTable, tmp_path: Path) -> None:
    known, others = split(0)
    before = {spec: table.lookup(spec) for spec in known}
    predicted(table)
    assert (len(table), table.predicted_count) == (180, 120)
    assert {spec: table.lookup(spec) for spec in known} == before
    assert all(table.lookup(spec).predicted_from == 60 for spec in others)
    found = estimate([known[0], others[0], others[0]], table)
    part = 2 * table.lookup(others[0]).latency_ms
    assert found.predicted_ms == pytest.approx(part)
    assert [term.spec for term in found.predicted] == [others[0]]
    verdict = check(table)
    assert any("120 of 180 entries are predicted" in text for text in verdict.remarks)
    assert table.nearest(others[0]) in known
    with make_table(tmp_path / "full.db", SPECS, smooth_ms) as full:
        moves = diff(table, full)
        assert (len(moves.moves), len(moves.predicted)) == (60, 120)


def test_measured_entries_replace_predictions(table: LatencyTable, tmp_path: Path) -> None:
    _, others = split(0)
    predicted(table)
    with make_table(tmp_path / "more.db", others[:5], smooth_ms) as more:
        merge(table, more)
    assert table.predicted_count == 115
    assert not table.lookup(others[0]).is_predicted
    with make_table(tmp_path / "other.db", split(0)[0], smooth_ms) as other:
        assert merge(other, table).predicted == 115
        assert merge(other, table).predicted == 0
    export_file(table, tmp_path / "t.csv")
    import_file(tmp_path / "t.csv", tmp_path / "back.db")
    with LatencyTable.open(tmp_path / "back.db") as back:
        assert back.predicted_count == 115
        assert back.lookup(others[9]).predicted_from == 60
        assert back.lookup(others[9]).passes == 0


def test_too_little_is_refused(tmp_path: Path) -> None:
    with (
        make_table(tmp_path / "few.db", SPECS[:19], smooth_ms) as few,
        pytest.raises(PredictionError, match="19 measured entries"),
    ):
        fit_predictor(few)
    with make_table(tmp_path / "one.db", SPECS[:40], smooth_ms) as one:
        predictor = fit_predictor(one)
        stranger = OpSpec("zoomed_conv", (32, 8, 16), 32)
        assert predict_entries(one, [stranger], predictor).left_out == (stranger,)
        with pytest.raises(PredictionError, match="zoomed_conv"):
            predictor.predict([stranger])
        wild = replace(predictor, kernel=Kernel((0.3,) * 6, 1e4, 1e-4))
        far = OpSpec("conv", (2048, 8, 16), 32)
        assert predict_entries(one, [far], wild).left_out == (far,)
    with pytest.raises(PredictionError, match="no logarithm"):
        Predictor.fit(SPECS[:30], np.zeros(30))


def test_pieces_of_files_are_neither_predicted_nor_transferred(tmp_path: Path) -> None:
    pieces = [
        OpSpec("subgraph_conv", (8, 4, 8), 8, graph=f"g{number:040x}") for number in range(30)
    ]
    for name in ("a.db", "b.db"):
        with (
            make_table(tmp_path / name, [*pieces, *SPECS[:5]]) as only,
            pytest.raises(PredictionError, match="pieces of ONNX files are not predicted"),
        ):
            fit_predictor(only)
    with pytest.raises(PredictionError, match="5 measured .* in common.*pieces of ONNX files"):
        KnownDevices.of([tmp_path / "a.db", tmp_path / "b.db"])
    with make_table(tmp_path / "both.db", [*pieces, *SPECS[:40]], lambda spec: 1.0) as both:
        assert len(fit_predictor(both).keys) == 40


def test_commands_say_how_much_of_a_number_is_predicted(table: LatencyTable) -> None:
    known, others = split(0)
    predicted(table)
    found = [estimate(known[:2], table), estimate([known[0], others[0]], table)]
    share = 100 * found[1].predicted_ms / found[1].ms
    assert predicted_text(found[:1]) == ""
    assert predicted_text(found) == (
        f"predicted, not measured: {share / 2:.0f}% of an estimate (mean of 2 networks; "
        f"0 to {share:.0f}%)"
    )


def test_command(table: LatencyTable) -> None:
    path = str(table.path)
    table.close()
    run = CliRunner().invoke
    shown = run(main, ["predict", "--table", path, "--op", "conv 40->64 stride 1 at 16x32"])
    assert shown.exit_code == 0 and "conv 40->64" in shown.output
    lacking = run(main, ["predict", "--table", path, "--op", "head 40->19 stride 1 at 16x32"])
    assert lacking.exit_code == 1 and "latlut profile" in lacking.output
    stored = run(main, ["predict", "--table", path, "--plan", "tiny"])
    assert stored.exit_code == 0 and "predicted from 60" in stored.output
    info = run(main, ["table", "info", path])
    assert "of them predicted" in info.output
    assert "predictions deleted" in run(main, ["predict", "--table", path, "--forget"]).output
    twice = run(main, ["predict", "--table", path, "--forget", "--plan", "tiny"])
    assert twice.exit_code == 2


def test_many_at_once_are_as_one_by_one_and_as_the_equations_say() -> None:
    known, _ = split(5)
    model = Predictor.fit(known, [smooth_ms(spec) for spec in known])
    wanted = [OpSpec("conv", (30 + n, 8, 16), 40 + n) for n in range(300)]
    wanted += [OpSpec("zoomed_conv", (30 + n, 8, 16), 64, kernel_size=5) for n in range(40)]
    found = model.predict(wanted)
    for place in (0, 127, 128, 299, 339):
        one = model.predict([wanted[place]])
        assert one.latency_ms[0] == pytest.approx(found.latency_ms[place], rel=1e-9)
        assert one.half_width[0] == pytest.approx(found.half_width[place], rel=1e-6)
    # Rasmussen and Williams, Eq. 2.25 and 2.26
    rows, own = model.features.rows(wanted), model.features.rows(known).matrix
    covariance = model.kernel.between(own, own) + model.kernel.noise * np.eye(len(own))
    beside = model.kernel.between(rows.matrix, own)
    targets = np.array(model.targets)
    standard = (targets - targets.mean()) / targets.std()
    mean = targets.mean() + targets.std() * beside @ np.linalg.solve(covariance, standard)
    assert np.allclose(np.log(found.latency_ms), mean + rows.log_work, rtol=1e-9)
    explained = (beside * np.linalg.solve(covariance, beside.T).T).sum(axis=1)
    variance = model.kernel.amplitude + model.kernel.noise - explained
    sd = targets.std() * np.sqrt(np.maximum(variance, model.kernel.noise))
    names = np.array([model.quantiles.get(name, model.quantiles[""]) for name in rows.categories])
    assert np.allclose(found.half_width, names * sd, rtol=1e-5)
