"""Trends of residuals: what they find in errors of a known cause, and how they are shown."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latlut.cli.residuals import print_trends, trends_as_json
from latlut.errors import LatlutError, SpecError
from latlut.opspec import OpSpec
from latlut.pricing.estimator import Estimate, Term
from latlut.reports.residuals import plot_residuals, shown_trends
from latlut.validation.trends import DEPTH, SIZE, Slope, Trend, holm, trends


@dataclass(frozen=True)
class Network:
    """A network of invented latency."""

    plain: Estimate
    measured_ms: float


def estimate_of(parts: Sequence[tuple[str, int, float]]) -> Estimate:
    """From (kind, how often, milliseconds of one execution)."""
    terms = tuple(Term(OpSpec(kind, (4, 8, 8), 4), count, ms, (kind,)) for kind, count, ms in parts)
    total = sum(term.total_ms for term in terms)
    return Estimate(total, None, None, terms, (), total, None)


def networks_of(count: int, refine_cost: float, seed: int = 0, noise: float = 0.002):
    """Random networks; ``refine`` takes ``refine_cost`` as long inside them as its entry says."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        conv, refine = rng.uniform(2, 4), rng.uniform(0.5, 2)
        depth = int(rng.integers(2, 8))
        parts = [("head", 1, 1.0), ("conv", depth, conv / depth), ("refine", 1, refine)]
        inside = 1.0 + conv + refine_cost * refine
        found.append(Network(estimate_of(parts), inside * (1 + noise * rng.normal())))
    return found


def by_name(found: Sequence[Trend]) -> dict[str, Trend]:
    return {trend.name: trend for trend in found}


def test_the_kind_that_costs_more_inside_is_found():
    networks = networks_of(60, refine_cost=1.5)
    exact = [n.plain.plain_ms + 0.5 * n.plain.terms[2].latency_ms for n in networks]
    found = trends(networks, exact)
    assert [trend.name for trend in found[:3]] == [SIZE, DEPTH, "share of refine"]
    refine = by_name(found)["share of refine"]
    assert refine.plain.spearman < -0.95
    assert refine.plain.is_significant
    assert refine.plain.low_percent < refine.plain.change_percent < refine.plain.high_percent < 0
    assert refine.calibrated is not None
    assert abs(refine.calibrated.change_percent) < 0.5
    assert not refine.calibrated.is_significant
    assert not by_name(found)[DEPTH].plain.is_significant


def test_the_change_is_that_between_the_10th_and_the_90th_percentile():
    # an error that is a straight line over the share of refine, 0.2 points per percent
    networks = []
    for share in np.linspace(10, 50, 41):
        parts = [("conv", 1, 100 - share), ("refine", 1, share)]
        networks.append(Network(estimate_of(parts), 100 / (1 + 0.002 * share)))
    refine = by_name(trends(networks))["share of refine"]
    assert refine.plain.change_percent == pytest.approx(0.2 * 0.8 * 40)
    assert refine.plain.low_percent == pytest.approx(refine.plain.high_percent)
    assert refine.plain.spearman == pytest.approx(1)
    assert refine.values == pytest.approx(np.linspace(10, 50, 41))
    assert refine.calibrated is None


def test_properties_that_do_not_vary_are_left_out():
    networks = networks_of(30, refine_cost=1.2)
    names = [trend.name for trend in trends(networks)]
    assert sorted(names) == [
        DEPTH,
        "share of conv",
        "share of refine",
        SIZE,
    ]  # no head: always 1 ms
    same_depth = [
        Network(estimate_of([("conv", 2, 1 + 0.01 * i), ("refine", 1, 1.0)]), 3.0 + 0.03 * i)
        for i in range(20)
    ]
    assert {trend.name for trend in trends(same_depth)} == {SIZE, "share of conv"}
    assert trends([Network(estimate_of([("conv", 1, 1.0)]), 1.0 + i) for i in range(20)]) == ()


def test_kinds_come_by_the_size_of_their_trend():
    found = trends(networks_of(40, refine_cost=2.0))[2:]
    changes = [abs(trend.plain.change_percent) for trend in found]
    assert len(changes) == 2
    assert changes == sorted(changes, reverse=True)


def test_equal_errors_have_no_trend():
    networks = networks_of(20, refine_cost=1.0, noise=0.0)
    for trend in trends(networks, [0.9 * item.measured_ms for item in networks]):
        assert trend.plain == trend.calibrated == Slope(0.0, 1.0, 0.0, 0.0, 0.0)


def test_nothing_is_said_of_few_networks(capsys):
    assert trends(networks_of(9, refine_cost=3.0)) == ()
    print_trends(())
    assert "they need 10 networks" in capsys.readouterr().out


def test_data_that_do_not_fit_are_refused():
    networks = networks_of(12, refine_cost=1.0)
    with pytest.raises(SpecError, match="expected one per network, 12, received 3"):
        trends(networks, [1.0, 2.0, 3.0])
    with pytest.raises(SpecError, match="calibrated_ms"):
        trends(networks, [float("nan")] * 12)
    with pytest.raises(SpecError, match="measured_ms"):
        trends([*networks, Network(networks[0].plain, 0.0)])


def test_without_an_effect_false_alarms_are_as_rare_as_they_claim():
    alarms = 0
    for seed in range(200):
        found = trends(networks_of(25, refine_cost=1.0, seed=seed))
        alarms += any(trend.plain.is_significant for trend in found)
    # 5% of 200 are 10; binomial, 99.9% of such experiments stay below 21
    assert alarms <= 20


def test_the_interval_covers_the_true_change_as_often_as_it_claims():
    # the relative error is -0.3 points per percent of refine, plus noise that does not depend on it
    covered = 0
    rng = np.random.default_rng(5)
    share = np.linspace(10, 50, 20)
    true = -0.3 * float(np.subtract(*np.quantile(share, [0.9, 0.1])))
    for _ in range(300):
        error = -0.003 * share + 0.02 * rng.normal(size=20)
        networks = [
            Network(estimate_of([("conv", 1, 100 - s), ("refine", 1, s)]), 100 / (1 + e))
            for s, e in zip(share, error, strict=True)
        ]
        slope = by_name(trends(networks))["share of refine"].plain
        covered += slope.low_percent <= true <= slope.high_percent
    assert 0.91 <= covered / 300 <= 0.98


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=200)
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values):
    corrected = holm(p_values)
    assert all(0 <= p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    ordered = [corrected[i] for i in np.argsort(p_values, kind="stable")]
    assert all(a <= b for a, b in pairwise(ordered))
    rejected = set()
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        if (len(p_values) - rank) * p_values[index] > 0.05:
            break
        rejected.add(int(index))
    assert rejected == {i for i, p in enumerate(corrected) if p <= 0.05}


def test_trends_are_printed_and_become_json(capsys):
    networks = networks_of(40, refine_cost=1.5)
    found = trends(networks, [item.measured_ms for item in networks])
    print_trends(found)
    text = capsys.readouterr().out
    refine = by_name(found)["share of refine"].plain
    for part in ("size", "depth", "share of refine", f"{refine.change_percent:+.1f}", "calibrated",
                 "corrected for 4 trends (Holm)", "*"):  # fmt: skip
        assert part in text, part
    plain_only = trends(networks)
    print_trends(plain_only)
    assert "calibrated" not in capsys.readouterr().out
    items = json.loads(json.dumps(trends_as_json(found)))
    assert [item["name"] for item in items] == [trend.name for trend in found]
    (shown,) = [item for item in items if item["name"] == "share of refine"]
    assert shown["plain"]["change_percent"] == refine.change_percent
    assert len(items[0]["values"]) == 40
    assert trends_as_json(plain_only)[0]["calibrated"] is None


@pytest.fixture(scope="module")
def drawn():
    networks = networks_of(40, refine_cost=1.5)
    measured = np.array([item.measured_ms for item in networks])
    plain = np.array([item.plain.plain_ms for item in networks])
    calibrated = measured * 1.01
    found = trends(networks, calibrated.tolist())
    return found, 100 * (plain / measured - 1), 100 * (calibrated / measured - 1)


class TestPicture:
    """``plot_residuals``."""

    @pytest.mark.parametrize(
        ("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]
    )
    def test_file_kind_follows_the_suffix(self, tmp_path, drawn, suffix, magic):
        path = tmp_path / f"residuals{suffix}"
        plot_residuals(*drawn, "a $ subject_{ " * 30, path)
        assert path.read_bytes().startswith(magic)
        assert [item.name for item in tmp_path.iterdir()] == [path.name]

    def test_it_shows_panels_numbers_and_both_estimates(self, tmp_path, drawn, monkeypatch):
        monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # text stays text
        plot_residuals(*drawn, "engine and device", tmp_path / "a.svg")
        text = (tmp_path / "a.svg").read_text()
        names = ("size, ms", "depth, operators", "share of refine, %", "share of conv, %")
        numbers = [f"{trend.plain.change_percent:+.1f}" for trend in shown_trends(drawn[0])]
        for part in (*names, *numbers, "engine and device", "sum of entries", "calibrated"):
            assert part in text, part
        plot_residuals(drawn[0], drawn[1], None, "", tmp_path / "b.svg")
        assert "calibrated" not in (tmp_path / "b.svg").read_text()

    def test_three_kinds_at_most(self, drawn):
        first = drawn[0][2]
        many = [*drawn[0][:2], *[Trend(f"share of {i}", "%", first.values, first.plain, None)
                                 for i in range(6)]]  # fmt: skip
        names = [trend.name for trend in shown_trends(many)]
        assert names == [SIZE, DEPTH, "share of 0", "share of 1", "share of 2"]

    def test_one_panel_and_equal_errors_are_drawn(self, tmp_path, drawn):
        plot_residuals(drawn[0][:1], np.zeros(40), None, "", tmp_path / "a.png")
        assert (tmp_path / "a.png").stat().st_size > 1000

    def test_same_data_same_file(self, tmp_path, drawn):
        for name in ("a.svg", "b.svg"):
            plot_residuals(*drawn, "subject", tmp_path / name)
        assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()

    def test_data_that_do_not_fit_are_refused(self, tmp_path, drawn):
        found, plain, calibrated = drawn
        path = tmp_path / "a.png"
        with pytest.raises(SpecError, match=r"plain_error_percent: expected shape \(40,\)"):
            plot_residuals(found, plain[1:], None, "", path)
        with pytest.raises(SpecError, match="calibrated_error_percent"):
            plot_residuals(found, plain, calibrated * np.nan, "", path)
        with pytest.raises(SpecError, match="no trends to draw"):
            plot_residuals((), plain, None, "", path)
        with pytest.raises(SpecError, match=r"\.pdf, \.png, \.svg"):
            plot_residuals(found, plain, None, "", tmp_path / "a.bmp")
        with pytest.raises(LatlutError, match="cannot write"):
            plot_residuals(found, plain, None, "", tmp_path / "missing" / "a.png")
        assert list(tmp_path.iterdir()) == []


def test_no_pyplot_and_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from latlut.reports.residuals import plot_residuals\n"
        "from latlut.validation.trends import Slope, Trend\n"
        "assert 'matplotlib' not in sys.modules\n"
        "a = np.arange(12.0); t = Trend('size', 'ms', a, Slope(0.0, 1.0, 0.0, 0.0, 0.0), None)\n"
        f"plot_residuals([t], a, None, '', {str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
