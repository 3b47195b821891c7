"""DecoupledLatency: exact expectations, checked by enumeration and by sampled networks."""

from __future__ import annotations

import math
import random
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from brute_latency import (
    NO_SKIP,
    Brute,
    fixed_factors,
    probabilities,
    random_relaxed,
    small_space,
)
from small_tables import INPUT_SIZE, invented_ms, make_table, plausible_ms, table_shelf

from latlut.errors import LatlutError, MissingEntryError, SpecError, TableError
from latlut.search.penalty.decoupled import DecoupledLatency
from latlut.search.penalty.prices import SpaceLayout
from latlut.search.penalty.weights import PAPER_WEIGHTS
from latlut.search.supernet.relaxed import Probabilities, RelaxedArchitecture
from latlut.spaces import Architecture, Branch, Cell, FasterSegSpace


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory):
    """A function that makes, once each, a table of a space."""
    with table_shelf(tmp_path_factory.mktemp("tables")) as table_of:
        yield table_of


# --- against enumeration ---


@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize("layers", [3, 4, 6])
def test_expectation_equals_the_sum_over_all_ways(tables, layers: int, branches: int) -> None:
    space = small_space(layers, branches)
    latency = DecoupledLatency(space, tables(space))
    brute = Brute(space, invented_ms, space.widths, 8)
    for seed in range(2):
        relaxed = random_relaxed(space, seed)
        found = latency(relaxed)
        assert found.expected_ms.item() == pytest.approx(
            brute.expected_ms(probabilities(relaxed)), rel=1e-12
        )
        terms = [
            brute.expected_ms(fixed_factors(relaxed, free)) for free in ("alpha", "beta", "gamma")
        ]
        assert found.terms_ms.tolist() == pytest.approx(terms, rel=1e-12)
        assert found.penalty_ms.item() == pytest.approx(np.dot(PAPER_WEIGHTS, terms), rel=1e-12)


@pytest.mark.parametrize("end_width", [8, 12])
def test_end_width_need_not_be_searched(tables, end_width: int) -> None:
    space = small_space()
    latency = DecoupledLatency(space, tables(space), end_width=end_width)
    relaxed = random_relaxed(space, 3, end_width=end_width)
    brute = Brute(space, invented_ms, space.widths, end_width)
    expected = brute.expected_ms(probabilities(relaxed))
    assert latency(relaxed).expected_ms.item() == pytest.approx(expected, rel=1e-12)


def test_a_teacher_has_one_width_and_widths_have_any_order(tables) -> None:
    space = small_space()
    for widths in ((8,), (8, 4)):
        latency = DecoupledLatency(space, tables(space), widths=widths, end_width=12)
        relaxed = random_relaxed(space, 4, widths=widths, end_width=12)
        found = latency(relaxed)
        brute = Brute(space, invented_ms, widths, 12)
        expected = brute.expected_ms(probabilities(relaxed))
        assert found.expected_ms.item() == pytest.approx(expected, rel=1e-12)
        fixed = brute.expected_ms(fixed_factors(relaxed, "alpha"))
        assert found.terms_ms[0].item() == pytest.approx(fixed, rel=1e-12)


def test_a_searched_skip_is_priced(tables) -> None:
    space = small_space()
    relaxed = random_relaxed(space, 5)
    latency = DecoupledLatency(space, tables(space), skip_price="searched")
    brute = Brute(space, invented_ms, space.widths, 8, skip_ms_is_zero=False)
    expected = brute.expected_ms(probabilities(relaxed))
    assert latency(relaxed).expected_ms.item() == pytest.approx(expected, rel=1e-12)


# --- against networks ---


def network(space: FasterSegSpace, ways, scales, operators, widths, end: int) -> Architecture:
    """The network of one draw of everything; widths of the maps into cells[1:]."""
    branches = []
    for scale, downs in zip(scales, ways, strict=True):
        path = [
            (layer, 8 * 2 ** sum(down < layer for down in downs)) for layer in range(space.layers)
        ]
        after = [*path[1:], None]
        cells = tuple(
            Cell(operators[cell], widths.get(following, end), cell[0] in downs)
            for cell, following in zip(path, after, strict=True)
        )
        branches.append(Branch(scale, cells))
    return Architecture(end, end, tuple(branches), space.base_width, space.num_classes)


def test_expectation_is_the_mean_over_all_networks(tables) -> None:
    space = small_space(3, operators=NO_SKIP)
    relaxed = random_relaxed(space, 6)
    with torch.no_grad():
        relaxed.alpha[3:5, 1] = -math.inf  # two cells of the last layer: fewer networks
    p = probabilities(relaxed)
    brute = Brute(space, invented_ms, space.widths, 8)
    cells = space.cells()
    price: dict[str, float] = {}
    mean = seen = 0.0
    for drawn in product(range(2), repeat=len(cells)):
        share = math.prod(float(p.alpha[row, k]) for row, k in enumerate(drawn))
        if not share:
            continue
        operators = {cell: NO_SKIP[k] for cell, k in zip(cells, drawn, strict=True)}
        for picked in product(range(2), repeat=len(cells) - 1):
            odds = share * math.prod(float(p.gamma[row, w]) for row, w in enumerate(picked))
            widths = {cell: space.widths[w] for cell, w in zip(cells[1:], picked, strict=True)}
            for scales in space.branch_scales():
                for ways in product(*(space.positions(scale) for scale in scales)):
                    weight = math.prod(
                        brute.way(p, scale, way) for scale, way in zip(scales, ways, strict=True)
                    )
                    net = network(space, ways, scales, operators, widths, 8)
                    total = 0.0
                    for node in net.nodes(INPUT_SIZE):
                        key = node.spec.key
                        if key not in price:
                            price[key] = invented_ms(node.spec)
                        total += price[key]
                    mean += odds * weight * total / len(space.branch_scales())
                    seen += odds * weight / len(space.branch_scales())
    assert seen == pytest.approx(1.0)
    found = DecoupledLatency(space, tables(space))(relaxed)
    assert found.expected_ms.item() == pytest.approx(mean, rel=1e-9)


def sampled_network(
    space: FasterSegSpace, p: Probabilities, end: int, rng: random.Random
) -> Architecture:
    """A network drawn from (alpha, beta, gamma) with the space's own rules for skips.

    A stride-1 skip drops out; where skip must not stand, alpha without skip draws again.
    """
    cells = space.cells()
    others = [k for k, name in enumerate(space.operators) if name != "skip"]
    drawn = {}
    for cell, weights in zip(cells, p.alpha.tolist(), strict=True):
        first = rng.choices(space.operators, weights)[0]
        second = rng.choices([space.operators[k] for k in others], [weights[k] for k in others])[0]
        drawn[cell] = (first, second, rng.random())
    widths = {
        cell: rng.choices(space.widths, weights)[0]
        for cell, weights in zip(cells[1:], p.gamma.tolist(), strict=True)
    }
    finer = dict(zip(cells, p.beta.tolist(), strict=True))
    branches = []
    for scale in rng.choice(space.branch_scales()):
        downs, at = [], scale
        for layer in range(space.layers - 1, 0, -1):
            if rng.random() < finer[layer, at]:
                downs.append(layer - 1)
                at //= 2
        found = space._sampled_cells(tuple(sorted(downs)), drawn, widths, end)
        branches.append(Branch(scale, found))
    return Architecture(end, end, tuple(branches), space.base_width, space.num_classes)


def mean_estimate(space, p, latency_ms, count: int, seed: int = 0) -> tuple[float, float]:
    """(mean, standard error) of ``count`` sampled networks' estimates, milliseconds."""
    rng = random.Random(seed)
    known: dict[str, float] = {}
    totals = []
    for _ in range(count):
        specs = sampled_network(space, p, 8, rng).op_specs(INPUT_SIZE)
        for spec in specs:
            if spec.key not in known:
                known[spec.key] = latency_ms(spec)
        totals.append(sum(known[spec.key] for spec in specs))
    return float(np.mean(totals)), float(np.std(totals) / np.sqrt(count))


def test_expectation_is_the_mean_of_sampled_networks(tables) -> None:
    space = small_space(8, operators=NO_SKIP)
    relaxed = random_relaxed(space, 7)
    found = DecoupledLatency(space, tables(space, plausible_ms))(relaxed).expected_ms.item()
    mean, error = mean_estimate(space, probabilities(relaxed), plausible_ms, 1000)
    assert abs(found - mean) < 4 * error
    assert 4 * error < 0.02 * mean  # or the comparison would show nothing


def test_with_skips_the_expectation_stays_near_the_mean_of_derived_networks(tables) -> None:
    space = small_space(16)
    relaxed = random_relaxed(space, 8, spread=0.01)
    found = DecoupledLatency(space, tables(space, plausible_ms))(relaxed).expected_ms.item()
    mean, error = mean_estimate(space, probabilities(relaxed), plausible_ms, 600)
    assert abs(found - mean) < 0.06 * mean + 4 * error


# --- what is refused, and what is said ---


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.5, 0.5), "three finite numbers"),
        ((0.5, float("nan"), 0.5), "three finite numbers"),
        ((-0.5, 1.0, 0.5), "not negative"),
        ((1, 2, 1), "sum 4; in this proportion: 0.25, 0.5, 0.25"),
        ((0, 0, 0), "the sum 0$"),
        ("equal", '"auto"'),
    ],
)
def test_weights_that_are_none(tables, weights, message: str) -> None:
    space = small_space()
    with pytest.raises(SpecError, match=message):
        DecoupledLatency(space, tables(space), weights=weights)


def test_weights_of_the_authors_code_are_weights(tables) -> None:
    space = small_space()
    latency = DecoupledLatency(space, tables(space), weights=(1 / 500, 497 / 500, 2 / 500))
    assert sum(latency.weights) == pytest.approx(1)


def test_missing_entries_are_listed_with_the_command_that_adds_them(tmp_path: Path) -> None:
    space = small_space()
    kept = [spec for spec in space.op_specs(INPUT_SIZE) if spec.kind != "zoomed_conv_2x"]
    with (
        make_table(tmp_path / "t.db", kept, space=space) as table,
        pytest.raises(MissingEntryError) as caught,
    ):
        DecoupledLatency(space, table)
    message = str(caught.value)
    lacking = {spec.key for spec in space.op_specs(INPUT_SIZE) if spec.kind == "zoomed_conv_2x"}
    lines = message.splitlines()
    assert 10 < int(lines[0].split("lacks ")[1].split()[0]) <= len(lacking)
    assert {line.strip() for line in lines[1:11]} <= lacking
    assert lines[11].strip().startswith("and ")
    assert "latlut profile --table" in lines[-1]
    assert "--input 64x128" in lines[-1]


def test_what_all_networks_share_may_be_left_out(tmp_path: Path, tables) -> None:
    space = small_space()
    kept = [spec for spec in space.op_specs(INPUT_SIZE) if spec.kind != "upsample"]
    whole = DecoupledLatency(space, tables(space))
    with make_table(tmp_path / "t.db", kept, space=space) as table:
        with pytest.raises(MissingEntryError, match="lacks 1 entry"):
            DecoupledLatency(space, table)
        partial = DecoupledLatency(space, table, leave_out_fixed=True)
    assert [spec.kind for spec in partial.prices.unpriced] == ["upsample"]
    relaxed = random_relaxed(space, 17)
    left_out = whole(relaxed).expected_ms - partial(relaxed).expected_ms
    assert left_out.item() == pytest.approx(invented_ms(partial.prices.unpriced[0]))


def test_a_variant_prices_what_is_missing_and_is_named(tmp_path: Path) -> None:
    space = small_space()
    specs = [
        spec.replace(interpolation="nearest") if spec.kind.startswith("zoomed") else spec
        for spec in space.op_specs(INPUT_SIZE)
    ]
    with make_table(tmp_path / "t.db", specs, space=space) as table:
        latency = DecoupledLatency(space, table)
    named = latency.prices.substituted
    assert {term.spec.kind for term in named} == {"zoomed_conv_2x"}
    assert all("nearest" in term.reason for term in named)


def test_the_input_size_is_the_tables_own(tmp_path: Path) -> None:
    space = small_space()
    specs = [*space.op_specs((64, 64)), *space.op_specs((96, 160))]
    relaxed = random_relaxed(space, 18)
    with make_table(tmp_path / "t.db", specs, space=space, input_size=(96, 160)) as table:
        own = DecoupledLatency(space, table)
        same = DecoupledLatency(space, table, input_size=(96, 160))
        other = DecoupledLatency(space, table, input_size=(64, 64))
    assert own.prices.layout.input_size == (96, 160)
    assert own(relaxed).expected_ms == same(relaxed).expected_ms != other(relaxed).expected_ms


def test_a_table_of_no_space_needs_an_input_size(tmp_path: Path) -> None:
    space = small_space()
    with make_table(tmp_path / "t.db", space.op_specs(INPUT_SIZE)) as table:
        with pytest.raises(TableError, match="no run of this table swept a search space"):
            DecoupledLatency(space, table)
        DecoupledLatency(space, table, input_size=INPUT_SIZE)


def test_an_architecture_of_another_kind_is_refused(tables) -> None:
    space = small_space()
    latency = DecoupledLatency(space, tables(space))
    for relaxed, what in (
        (RelaxedArchitecture(small_space(5)), "space"),
        (RelaxedArchitecture(space, widths=(8,)), "widths"),
        (RelaxedArchitecture(space, end_width=12), "end width"),
    ):
        with pytest.raises(SpecError, match=f"of {what} "):
            latency(relaxed)


def test_unknown_choices_are_refused(tables) -> None:
    space = small_space()
    with pytest.raises(SpecError, match="sampling is"):
        DecoupledLatency(space, tables(space), sampling="soft")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="skip_price is one of"):
        DecoupledLatency(space, tables(space), skip_price="free")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="stem and head widths"):
        DecoupledLatency(space, tables(space), end_width=4)
    with pytest.raises(SpecError, match="received 12"):
        DecoupledLatency(space, tables(space), widths=(12,))


def test_automatic_weights_balance_the_gaps_or_are_refused(tables) -> None:
    space = small_space()
    weights = DecoupledLatency(space, tables(space, plausible_ms), weights="auto").weights
    assert sum(weights) == pytest.approx(1)
    with pytest.raises(LatlutError, match="the width gap is 0"):
        DecoupledLatency(space, tables(space, plausible_ms), weights="auto", widths=(8,))


def test_every_priced_op_spec_is_one_that_the_spaces_plan_measures() -> None:
    for branches in (1, 2):
        for end_width in (8, 12):
            space = small_space(4, branches)
            layout = SpaceLayout(space, space.widths, end_width, INPUT_SIZE, 1, "searched")
            asked = {layout.spec(choice) for _, choice in layout.choices()}
            asked |= {*layout.fixed_specs(), layout.refine_spec(16, 4), layout.refine_spec(8, 4)}
            assert asked <= set(space.op_specs(INPUT_SIZE))
