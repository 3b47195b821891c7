"""Fitted networks hit reachable targets, cost the least probability, and the reach is a reach."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_tables import INPUT_SIZE, plausible_ms, space_table

from latlut.errors import SpecError
from latlut.pricing.estimator import estimate
from latlut.search.derive.derive import derive
from latlut.search.derive.fitting import Fitter, Price, reachable_ms
from latlut.search.penalty.prices import layout_for, read_prices
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.spaces import FasterSegSpace

SPACE = FasterSegSpace(layers=6, base_width=3, widths=(4, 8, 12), stem_head_widths=(8,))


@pytest.fixture(scope="module")
def price(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Price]:
    path: Path = tmp_path_factory.mktemp("fitting") / "table.db"
    with space_table(path, SPACE, plausible_ms) as table:
        layout = layout_for(SPACE, table, None, 8, None, None, "derived")
        yield read_prices(layout, table).network_ms


def test_the_arrays_price_as_estimate_does(tmp_path: Path) -> None:
    space = FasterSegSpace(layers=6, base_width=3, widths=(4, 12), stem_head_widths=(8,))
    with space_table(tmp_path / "table.db", space) as table:
        prices = read_prices(layout_for(space, table, None, 8, None, None, "derived"), table)
        for network in space.sample_many(40, 0):
            expected = estimate(network.op_specs(INPUT_SIZE), table).ms
            assert prices.network_ms(network) == pytest.approx(expected)
        other = FasterSegSpace(base_width=6, widths=(6,), stem_head_widths=(8,))
        with pytest.raises(SpecError, match="not of 6"):
            prices.network_ms(other.sample(0))


def relaxed(seed: int, spread: float = 1.0) -> RelaxedArchitecture:
    found = RelaxedArchitecture(SPACE, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.15, 0.5, 0.85])
def test_targets_within_reach_are_hit(price: Price, seed: int, share: float) -> None:
    student = relaxed(seed)
    fastest, slowest = reachable_ms(student, price, SPACE.branch_scales())
    target_ms = fastest + share * (slowest - fastest)
    fits = [Fitter(student, s, price).fit(target_ms, 0.02) for s in SPACE.branch_scales()]
    nearest = min(fits, key=lambda fit: abs(fit.latency_ms / target_ms - 1))
    assert abs(nearest.latency_ms / target_ms - 1) <= 0.0201
    assert nearest.latency_ms == pytest.approx(price(nearest.architecture))


def test_an_argmax_that_fits_is_left_as_it_is(price: Price) -> None:
    student = relaxed(1)
    network = derive(student, (8, 32))
    fit = Fitter(student, (8, 32), price).fit(price(network), 0.02)
    assert (fit.architecture, fit.loss, fit.changes) == (network, 0.0, 0)


def test_changes_go_to_the_choices_that_are_least_sure(price: Price) -> None:
    """With one cell undecided and all others sure, a small step is made in that cell."""
    student = relaxed(0, spread=0.0)
    with torch.no_grad():
        student.alpha[:, 1] = 9.0  # conv everywhere
        student.gamma[:, 1] = 9.0
        student.beta[:, 1] = 9.0
        student.alpha[0, :] = 0.0  # the first cell is on every path
        student.alpha[0, 1] = 0.1
    network = derive(student, (8, 16))
    wanted = replace(
        network,
        branches=tuple(
            replace(
                branch, cells=(replace(branch.cells[0], operator="zoomed_conv"), *branch.cells[1:])
            )
            for branch in network.branches
        ),
    )
    fit = Fitter(student, (8, 16), price).fit(price(wanted), 1e-4)
    assert (fit.architecture, fit.changes) == (wanted, 1)
    assert fit.loss == pytest.approx(0.1)


def test_the_reach_holds_every_sampled_network(price: Price) -> None:
    fastest, slowest = reachable_ms(relaxed(0, 0.0), price, SPACE.branch_scales())
    sampled = [price(network) for network in SPACE.sample_many(200, 5)]
    assert 0 < fastest <= min(sampled) * 1.02
    assert slowest >= max(sampled) * 0.98
    assert math.isfinite(slowest)


def test_a_teacher_never_skips(price: Price) -> None:
    student = relaxed(2)
    with torch.no_grad():
        student.alpha[:, 0] += 5.0
    fit = Fitter(student, (8, 32), price, allow_skip=False).fit(0.0, 0.0)
    assert all(len(branch.cells) == SPACE.layers for branch in fit.architecture.branches)
