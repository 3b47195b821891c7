"""Calibration: scripted composition effects are found, intervals cover, the model is used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click
import matplotlib
import numpy as np
import pytest
from click.testing import CliRunner, Result
from fake_engine import FakeEngine, work_ns

from latlut.cli import main
from latlut.cli.output import QUIET
from latlut.cli.residuals import plot, print_composition, print_validation
from latlut.errors import CalibrationError, IdentityError
from latlut.measure.plans import load_plan
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.pricing import calibration as calibrations
from latlut.pricing.calibration import NETWORK, kind_effect, spec_effects
from latlut.pricing.estimator import Estimate, Term, calibrated, estimate
from latlut.pricing.sum_errors import sum_error
from latlut.search.penalty.prices import layout_for, read_prices
from latlut.spaces import Architecture, FasterSegSpace
from latlut.table.calibrations import fitted_networks, forget
from latlut.table.space import space_of
from latlut.table.table import LatencyTable
from latlut.validation.fitting import (
    calibrate,
    fit,
    learning_curve,
    measured_networks,
)
from latlut.validation.measured import MeasuredNetwork
from latlut.validation.validate import ValidationSettings, store, validate
from latlut.validation.verdict import check

#: For networks of which only estimate and measurement count.
ANY_NETWORK = FasterSegSpace().sample(0)

PLAN = """
format = 1
input = "64x64"
[space]
name = "fasterseg"
layers = 5
widths = [4, 6]
stem_head_widths = [4]
"""
CONSTANT_NS = 150_000.0
NETWORKS, FITTED = 44, 24
KIND_FACTORS = {"conv": 1.0, "conv_2x": 1.1, "zoomed_conv": 0.9, "zoomed_conv_2x": 1.0,
                "refine": 1.4}  # fmt: skip


def inside_ns(spec: OpSpec) -> float:
    """What an op spec takes inside a network: its kind's factor, and more on small maps."""
    alone = work_ns(Workload.from_spec(spec))
    on_small_maps = 0.3 if spec.output[1] <= 2 else 0.0
    if spec.kind not in KIND_FACTORS:
        return alone
    return alone * (KIND_FACTORS[spec.kind] + on_small_maps)


def composed_ns(workload: Workload) -> float:
    if not workload.nodes:
        return work_ns(workload)
    return CONSTANT_NS + sum(inside_ns(spec) for spec in workload.specs)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table whose validation measured networks that do not add up."""
    folder = tmp_path_factory.mktemp("calibrate")
    (folder / "small.toml").write_text(PLAN)
    engine = FakeEngine(noise=0.01)
    engine.work_ns = composed_ns
    with LatencyTable.create(
        folder / "made.db", identity_of(engine, "cpu", statistic="p10")
    ) as table:
        Sweep(table, load_plan(folder / "small.toml"), engine, SweepSettings(passes=3)).run()
        settings = ValidationSettings(networks=NETWORKS, rounds=1)
        where = space_of(table)
        store(table, validate(table, engine, where, settings), settings, where)
    return folder / "made.db"


@pytest.fixture
def table(made: Path, tmp_path: Path):
    path = tmp_path / "made.db"
    path.write_bytes(made.read_bytes())
    with LatencyTable.open(path, is_writable=True) as opened:
        yield opened


def fit_and_store(table: LatencyTable, count: int = FITTED, seed: int = 0):
    found = calibrate(table, measured_networks(table), count, seed)
    calibrations.store(table, found.calibration, {}, seed, found.used(""))
    return found


def test_scripted_effects_are_found_and_other_networks_predicted(table: LatencyTable) -> None:
    found = fit_and_store(table)
    assert found.held_out is not None
    assert found.held_out.plain.mape_percent > 4
    assert found.held_out.calibrated.mape_percent < 1
    assert found.held_out.calibrated.r > found.held_out.plain.r
    specs = {term.spec for item in found.fitted for term in item.plain.terms}
    for spec in specs:
        if spec.kind in KIND_FACTORS:
            truth = inside_ns(spec) / work_ns(Workload.from_spec(spec))
            assert found.calibration.factor(spec) == pytest.approx(truth, abs=0.15)


def test_kinds_that_never_vary_belong_to_the_constant(table: LatencyTable) -> None:
    own = fit_and_store(table).calibration
    head = next(entry.spec for entry in table if entry.spec.kind == "head")
    assert kind_effect(head) not in own.effects
    assert own.factor(head) == 1
    assert own.constant_ms == pytest.approx(CONSTANT_NS / 1e6, rel=0.3)


def test_estimate_uses_the_calibration_and_can_do_without(table: LatencyTable) -> None:
    where = space_of(table)
    network = where.space.sample_many(1, seed=99)[0]
    specs = network.op_specs(where.input_size)
    before = estimate(specs, table)
    own = fit_and_store(table).calibration
    after, plain = estimate(specs, table), estimate(specs, table, is_calibrated=False)
    assert estimate(network, table) == after
    assert plain == before
    assert after.ms == pytest.approx(
        own.constant_ms + sum(t.count * own.factor(t.spec) * t.latency_ms for t in plain.terms)
    )
    assert after.plain_ms == plain.ms
    truth_ms = composed_ns(Workload.from_nodes(network.nodes(where.input_size), "n")) / 1e6
    assert abs(after.ms / truth_ms - 1) < 0.5 * abs(plain.ms / truth_ms - 1)
    assert after.ci_low_ms is not None and after.ci_high_ms is not None
    assert after.ci_low_ms < after.ms < after.ci_high_ms


def test_the_interval_of_a_plain_sum_holds_what_sums_miss(table: LatencyTable) -> None:
    """Networks that were not validated lie in it, which the entries' own intervals do not hold."""
    where = space_of(table)
    inside = alone = 0
    networks = where.space.sample_many(40, seed=123)
    for network in networks:
        found = estimate(network.op_specs(where.input_size), table)
        assert found.sum_error is not None and found.sum_error.networks == NETWORKS
        truth_ms = composed_ns(Workload.from_nodes(network.nodes(where.input_size), "n")) / 1e6
        assert found.ci_low_ms is not None and found.ci_high_ms is not None
        inside += found.ci_low_ms <= truth_ms <= found.ci_high_ms
        alone += abs(found.ms - truth_ms) <= 1.96 * (found.entries_sd_ms or 0.0)
    assert inside >= 36 > alone
    with table.writing() as db:  # a disturbed validation says nothing of sums
        db.execute("UPDATE validations SET cpu_share = 0.5")
    assert sum_error(table).networks == 0


def test_the_search_prices_networks_as_estimate_does(table: LatencyTable) -> None:
    fit_and_store(table)
    where = space_of(table)
    layout = layout_for(where.space, table, None, 4, None, None, "derived")
    prices = read_prices(layout, table)
    for network in where.space.sample_many(20, seed=5):
        found = estimate(network.op_specs(where.input_size), table)
        assert prices.network_ms(network) == pytest.approx(found.ms)


def test_the_penalty_of_a_layer_wise_space_is_calibrated(table: LatencyTable) -> None:
    import torch

    from latlut.penalty import ExpectedLatency

    convs = [entry.spec for entry in table if entry.spec.kind in ("conv", "conv_2x")][:4]
    plain = ExpectedLatency([convs], table)
    own = fit_and_store(table).calibration
    logits = torch.zeros(1, 4, requires_grad=True)
    expected = ExpectedLatency([convs], table)(logits)
    wanted = own.constant_ms + np.mean(
        [own.factor(spec) * table.lookup(spec).latency_ms for spec in convs]
    )
    assert expected.item() == pytest.approx(wanted, rel=1e-5)
    assert plain(logits).item() != pytest.approx(wanted, rel=1e-3)
    (gradient,) = torch.autograd.grad(expected, logits)
    assert gradient.abs().sum() > 0


def test_validate_leaves_out_what_was_fitted(table: LatencyTable) -> None:
    engine = FakeEngine(noise=0.01, seed=4)
    engine.work_ns = composed_ns
    fit_and_store(table)
    where = space_of(table)
    found = validate(table, engine, where, ValidationSettings(networks=NETWORKS, rounds=1))
    assert len(found.judged) == NETWORKS - FITTED
    assert found.scores is not None
    assert found.agreement.n == NETWORKS - FITTED
    assert found.agreement.mape_percent < found.plain.mape_percent / 3
    fitted = fitted_networks(table)
    assert not any(item.architecture.to_json() in fitted for item in found.judged)


def test_the_plot_of_a_validation_shows_both_estimates(
    table: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # text stays text
    engine = FakeEngine(noise=0.01, seed=4)
    engine.work_ns = composed_ns
    where = space_of(table)
    settings = ValidationSettings(networks=NETWORKS, rounds=1)
    texts = []
    for number in range(2):
        found = validate(table, engine, where, settings)
        plot(table, found, where, tmp_path / f"{number}-validation.svg")
        texts.append((tmp_path / f"{number}-validation.svg").read_text())
        if not number:
            assert found.scores is None
            assert f"r = {found.plain.r:.4f}" in texts[0]
            fit_and_store(table)
    assert found.scores is not None
    for agreement in (found.scores.plain, found.scores.calibrated):
        assert f">{agreement.r:.4f}<" in texts[1]
        assert f">{agreement.mape_percent:.2f}%<" in texts[1]
    assert f"n = {NETWORKS - FITTED}<" in texts[1]
    assert "95% interval, calibrated" in texts[1]
    assert "calibrated" not in texts[0]
    assert "disturbed" not in texts[1]
    found = replace(found, readings=replace(found.readings, cpu_share=0.5))
    plot(table, found, where, tmp_path / "busy-validation.svg")
    for name in ("validation", "residuals"):
        assert "disturbed" in (tmp_path / f"busy-{name}.svg").read_text()


def test_validate_refuses_networks_that_were_all_fitted(table: LatencyTable) -> None:
    fit_and_store(table, NETWORKS)
    engine = FakeEngine()
    with pytest.raises(CalibrationError, match="another --seed, not 0"):
        validate(table, engine, space_of(table), ValidationSettings(networks=NETWORKS, rounds=1))
    assert engine.opened == []


def synthetic(
    count: int, rng: np.random.Generator, noise: float = 0.01, scale: float = 1.0
) -> list[MeasuredNetwork]:
    """Networks of two kinds and a fixed head, of known composition, with normal errors."""
    specs = [OpSpec.parse(text) for text in (
        "conv 4->4 at 16x16", "conv 8->8 at 8x8", "conv_2x 4->4 at 16x16", "conv_2x 8->8 at 8x8",
    )]  # fmt: skip
    head = OpSpec.parse("conv_1x1 8->8 at 8x8")
    factors = np.array([1.2, 1.4, 0.9, 1.1])
    found = []
    for _ in range(count):
        parts = scale * rng.uniform(0.2, 2.0, 4)
        terms = (
            *(Term(spec, 1, ms, (spec.key,)) for spec, ms in zip(specs, parts, strict=True)),
            Term(head, 1, 1.0, (head.key,)),
        )
        plain_ms = float(parts.sum()) + 1.0
        plain = Estimate(plain_ms, None, None, terms, (), plain_ms, 0.0)
        truth = float(parts @ factors) + 1.3
        measured = truth + rng.normal(0, noise) * plain_ms
        found.append(MeasuredNetwork(ANY_NETWORK, plain, measured, measured))
    return found


def test_intervals_cover_as_often_as_they_say() -> None:
    inside = total = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        own = fit(synthetic(30, rng))
        for item in synthetic(80, rng):
            found = calibrated(item.plain, own)
            assert found.ci_low_ms is not None and found.ci_high_ms is not None
            inside += found.ci_low_ms <= item.measured_ms <= found.ci_high_ms
            total += 1
    # Not less often; somewhat more, because they widen wherever a sum leaves the fitted range.
    assert 0.94 <= inside / total <= 0.985


def test_one_network_with_a_trouble_of_its_own_hardly_widens_the_others() -> None:
    """As an engine that converts every map of one network: 1.5 times its sum."""
    rng = np.random.default_rng(0)
    networks, others = synthetic(30, rng), synthetic(80, rng)
    usual = fit(networks)
    ms = networks[0].measured_ms * 1.5
    odd = replace(networks[0], measured_first_ms=ms, measured_second_ms=ms)
    own = fit([odd, *networks[1:]])
    widths = [half(calibrated(item.plain, own)) / item.plain.ms for item in others]
    assert np.median(widths) < 3 * half(calibrated(others[0].plain, usual)) / others[0].plain.ms
    inside = [abs(calibrated(i.plain, own).ms - i.measured_ms) <= half(calibrated(i.plain, own))
              for i in others]  # fmt: skip
    assert np.mean(inside) >= 0.94


def test_entries_that_are_known_less_well_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    own = fit(synthetic(30, rng))
    (item,) = synthetic(1, rng)
    usual = calibrated(item.plain, own)
    unsure = calibrated(replace(item.plain, entries_sd_ms=0.05 * item.plain.ms), own)
    unknown = calibrated(replace(item.plain, entries_sd_ms=None), own)
    assert half(unsure) > 3 * half(usual)
    assert unknown.ci_low_ms is None


def half(found: Estimate) -> float:
    assert found.ci_high_ms is not None
    return found.ci_high_ms - found.ms


def test_the_interval_widens_outside_of_what_was_fitted_and_says_so() -> None:
    rng = np.random.default_rng(1)
    own = fit(synthetic(30, rng))
    inside, outside = synthetic(1, rng)[0].plain, synthetic(1, rng, scale=5.0)[0].plain
    near, far = calibrated(inside, own), calibrated(outside, own)
    assert half(far) / far.ms > 1.5 * half(near) / near.ms
    assert any("kind conv" in note and "the calibration saw" in note for note in far.notes)


def test_an_unknown_kind_counts_with_its_entry() -> None:
    own = fit(synthetic(30, np.random.default_rng(2)))
    spec = OpSpec.parse("zoomed_conv 8->8 at 8x8")
    assert own.factor(spec) == 1
    assert not own.covers(spec)


def test_factors_stay_positive_whatever_was_measured() -> None:
    rng = np.random.default_rng(3)
    networks = []
    for item in synthetic(30, rng):
        convs = sum(ms for spec, ms, _ in item.terms if spec.kind == "conv")
        wrong = item.plain.ms - 1.5 * convs  # as if convolutions took less than nothing
        networks.append(replace(item, measured_first_ms=wrong, measured_second_ms=wrong))
    own = fit([item for item in networks if item.measured_ms > 0])
    for spec in {term.spec for item in networks for term in item.plain.terms}:
        assert own.factor(spec) >= 0.2


def test_the_learning_curve_falls(table: LatencyTable) -> None:
    curve = learning_curve(measured_networks(table), splits=4)
    assert [point.networks for point in curve] == [0, 10, 15, 20, 25, 30]
    assert curve[0].mape_percent > 3 * curve[-1].mape_percent
    assert curve[1].mape_percent >= curve[-1].mape_percent


def test_too_few_networks(table: LatencyTable) -> None:
    networks = measured_networks(table)
    with pytest.raises(CalibrationError, match=r"needs 10 .* there are 9\n.*latlut validate"):
        fit(networks[:9])


def test_networks_that_are_all_alike(table: LatencyTable) -> None:
    with pytest.raises(CalibrationError, match="all alike"):
        fit(measured_networks(table)[:1] * 12)


def test_an_unknown_validation(table: LatencyTable) -> None:
    with pytest.raises(CalibrationError, match="no validation 7: it has 1"):
        measured_networks(table, validation_id=7)


def test_networks_of_another_identity(table: LatencyTable, tmp_path: Path) -> None:
    other = replace(table.identity, threads=2)
    with (
        LatencyTable.create(tmp_path / "other.db", other) as source,
        pytest.raises(IdentityError, match="threads"),
    ):
        measured_networks(table, source)


def test_networks_that_the_table_cannot_price(table: LatencyTable) -> None:
    with table.writing() as db:
        db.execute("UPDATE validations SET input_size = '128x128'")
    with pytest.raises(CalibrationError, match=r"other operator configurations .*such as .* at "):
        measured_networks(table)


def test_a_calibration_of_an_older_version_is_refused(table: LatencyTable) -> None:
    fit_and_store(table)
    with table.writing() as db:
        db.execute("UPDATE calibrations SET version = 0")
    where = space_of(table)
    specs = where.space.sample_many(1, seed=1)[0].op_specs(where.input_size)
    with pytest.raises(CalibrationError, match=r"(?s)version 0.*latlut calibrate.*--forget"):
        estimate(specs, table)
    assert estimate(specs, table, is_calibrated=False).ms > 0


def test_a_calibration_can_be_forgotten(table: LatencyTable) -> None:
    fit_and_store(table)
    fit_and_store(table, seed=1)
    assert forget(table) == 2
    assert calibrations.stored(table) is None
    assert fitted_networks(table) == set()


def test_the_latest_calibration_is_in_force_and_survives_the_file(table: LatencyTable) -> None:
    fit_and_store(table)
    second = fit_and_store(table, seed=1).calibration
    with LatencyTable.open(table.path) as again:
        assert calibrations.stored(again) == second
        rows = again.rows("SELECT * FROM calibration_networks WHERE calibration_id = 2")
    assert sum(row["is_fitted"] for row in rows) == FITTED
    assert all(Architecture.from_json(row["architecture"]).branches for row in rows)


def test_what_another_connection_writes_is_in_force_at_once(table: LatencyTable) -> None:
    where = space_of(table)
    specs = where.space.sample_many(1, seed=99)[0].op_specs(where.input_size)
    with LatencyTable.open(table.path) as reader:
        assert estimate(specs, reader).calibration is None
        for seed in (0, 1):
            own = fit_and_store(table, seed=seed).calibration
            found = estimate(specs, reader).calibration
            assert found == own
            assert calibrations.stored(reader) is found  # parsed once
        forget(table)
        assert estimate(specs, reader).calibration is None
        third = fit_and_store(table, seed=2).calibration  # under the first one's number
        assert estimate(specs, reader).calibration == third


def test_every_network_counts_once(table: LatencyTable) -> None:
    """A second validation of the same networks replaces the first one's measurements."""
    engine = FakeEngine(seed=8)
    where, settings = space_of(table), ValidationSettings(networks=12, rounds=1)
    store(table, validate(table, engine, where, settings), settings, where)
    networks = measured_networks(table)
    assert len(networks) == NETWORKS
    assert sum(item.validation_id == 2 for item in networks) == 12


def test_effects_are_named_by_kind_and_map() -> None:
    spec = OpSpec.parse("conv 4->8 stride 2 at 16x16")
    assert spec_effects(spec) == ("kind conv", "map 8x8", "conv at 8x8")
    own = fit(synthetic(12, np.random.default_rng(4)))
    assert own.effects[-1] == NETWORK
    assert json.loads(json.dumps(own.values)) == list(own.values)


def test_check_says_that_entries_have_changed_since(table: LatencyTable) -> None:
    fit_and_store(table)
    assert not any("have changed" in reason.text for reason in check(table).reasons)
    with table.writing() as db:
        db.execute("UPDATE entries SET latency_ms = 1.1 * latency_ms")
    with LatencyTable.open(table.path) as again:
        reasons = [reason.text for reason in check(again).reasons]
        assert any("latlut calibrate --table" in text for text in reasons)


def called(table: LatencyTable, *words: str) -> Result:
    found = CliRunner().invoke(main, ["calibrate", "--table", str(table.path), *words])
    assert found.exit_code == 0, found.output
    return found


def test_the_command_is_short_and_ends_with_the_verdict(table: LatencyTable) -> None:
    networks = ("--networks", str(FITTED))
    short = called(table, *networks).stdout
    lines = short.splitlines()
    assert len(lines) < 20
    assert f"{NETWORKS - FITTED} networks left out of the fit" in short
    assert f"{FITTED} fitted networks, cross-validated" in short
    assert all(text in short for text in ("constant per network", "residual spread", "stored in"))
    assert all(any(line.startswith(kind) for line in lines) for kind in ("conv ", "refine "))
    assert lines[-1] == check(table).sentence
    long = called(table, *networks, "--details").stdout
    assert "networks fitted on" in long and "Kendall" in long and "at 2x2" in long
    assert "Kendall" not in short and "at 2x2" not in short
    assert long.splitlines()[-1] == check(table).sentence


def test_the_command_is_quiet_if_asked(table: LatencyTable) -> None:
    networks = ("--networks", str(FITTED))
    quiet = called(table, *networks, "-q")
    header, held_out, folds = quiet.stdout.splitlines()
    assert "plain sum" in header and "calibrated" in header
    assert "left out" in held_out and "cross-validated" in folds
    assert not quiet.stderr
    fitted = json.loads(called(table, *networks, "-q", "--json").stdout)
    assert f"{fitted['held_out']['plain']['mape_percent']:.2f}" in held_out
    assert f"{fitted['held_out']['calibrated']['mape_percent']:.2f}" in held_out
    assert fitted["verdict"] == check(table).sentence and fitted["forced"] == []


def test_a_forced_calibration_keeps_its_reason(table: LatencyTable) -> None:
    with table.writing() as db:
        db.execute("UPDATE validations SET cpu_share = 0.5")
    networks = ("--networks", str(FITTED))
    refused = CliRunner().invoke(main, ["calibrate", "--table", str(table.path), *networks])
    assert refused.exit_code == 2 and calibrations.stored(table) is None
    found = called(table, *networks, "--force")
    own = calibrations.stored(table)
    assert own is not None
    assert own.forced == ("validation 1: other processes took 50% of the CPU",)
    assert own.forced_text in found.stdout.splitlines()[-1]


def test_the_agreement_alone_is_printed_where_it_has_to_be_quiet(
    table: LatencyTable, capsys: pytest.CaptureFixture[str]
) -> None:
    where = space_of(table)
    found = validate(table, FakeEngine(), where, ValidationSettings(networks=4, rounds=1))
    print_validation(found, "t.db", "t.png")
    loud = capsys.readouterr().out.splitlines()
    with click.Context(click.Command("validate")) as context:
        context.meta[QUIET] = True
        print_validation(found, "t.db", "t.png")
        print_composition([])
    quiet = capsys.readouterr().out.splitlines()
    assert quiet == loud[1 : 1 + len(quiet)] and len(quiet) == 5
    assert "stored in: t.db" in loud and quiet[0].startswith("estimates")
