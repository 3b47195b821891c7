"""Steps of staircases whose steps are known, and none on smooth noisy lines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latlut.errors import SpecError
from latlut.stats.steps import common_multiple, find_steps

WIDTHS = np.arange(32, 129)
NOISE = 0.004
SEEDS = range(6)


def noisy(true_ms: np.ndarray, seed: int, noise: float = NOISE) -> np.ndarray:
    return true_ms * np.exp(noise * np.random.default_rng(seed).normal(size=len(true_ms)))


def found_at(values, latency_ms, own_error=1.96 * NOISE):
    found = find_steps(values, latency_ms, [own_error] * len(values))
    return [int(values[step.before]) for step in found.steps]


@pytest.mark.parametrize(("width", "noise"), [(4, NOISE / 2), (8, NOISE), (16, NOISE)])
@pytest.mark.parametrize("seed", SEEDS)
def test_positions_of_a_staircase_are_recovered(width: int, noise: float, seed: int) -> None:
    true_ms = 0.1 + 0.01 * width * np.ceil(WIDTHS / width)
    at = found_at(WIDTHS, noisy(true_ms, seed, noise), 1.96 * noise)
    assert at == [value for value in WIDTHS[:-1] if value % width == 0]


@pytest.mark.parametrize("seed", SEEDS)
def test_steps_that_much_noise_hides_are_said_to_be_unclear(seed: int) -> None:
    true_ms = 0.01 * np.ceil(WIDTHS / 8)
    clear = find_steps(WIDTHS, noisy(true_ms, seed), [1.96 * NOISE] * 97)
    assert clear.unclear == () and len(clear.steps) == 12
    hidden = find_steps(WIDTHS, noisy(true_ms, seed, 0.02), [1.96 * 0.02] * 97)
    assert hidden.unclear and len(hidden.steps) + len(hidden.unclear) <= 12
    assert not {step.before for step in hidden.steps} & set(hidden.unclear)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_step_on_a_slope_has_its_height_and_interval(seed: int) -> None:
    true_ms = (0.2 + 0.004 * WIDTHS) * np.where(WIDTHS > 96, 1.08, 1.0)
    (step,) = find_steps(WIDTHS, noisy(true_ms, seed), [1.96 * NOISE] * len(WIDTHS)).steps
    assert WIDTHS[step.before] == 96
    assert step.low_percent < step.percent < step.high_percent
    assert step.percent == pytest.approx(100 * (true_ms[65] / true_ms[64] - 1), abs=1.0)
    assert step.beyond_trend_percent == pytest.approx(8, abs=1.0)
    assert step.percent > step.beyond_trend_percent


def test_intervals_of_steps_cover_as_they_claim() -> None:
    true_ms = np.where(WIDTHS > 80, 1.1, 1.0) * (0.2 + 0.004 * WIDTHS)
    truth = 100 * (true_ms[49] / true_ms[48] - 1)
    found = [find_steps(WIDTHS, noisy(true_ms, seed), [1.96 * NOISE] * 97) for seed in range(100)]
    steps = [step for item in found for step in item.steps if WIDTHS[step.before] == 80]
    assert len(steps) >= 98
    covered = np.mean([step.low_percent <= truth <= step.high_percent for step in steps])
    assert 0.90 <= covered <= 0.99


@pytest.mark.parametrize("seed", SEEDS)
def test_single_points_that_are_faster_are_found(seed: int) -> None:
    """A comb: only multiples of 4 run the fast kernel."""
    true_ms = (0.2 + 0.004 * WIDTHS) * np.where(WIDTHS % 4, 1.3, 1.0)
    found = find_steps(WIDTHS, noisy(true_ms, seed), [1.96 * NOISE] * len(WIDTHS))
    dearer = [int(WIDTHS[step.before]) for step in found.steps if step.percent > 0]
    assert dearer == [value for value in WIDTHS[:-1] if value % 4 == 0]
    assert common_multiple(dearer, WIDTHS.tolist()) == 4


@pytest.mark.parametrize(
    "shape",
    [
        lambda x: 0.2 + 0.004 * x,
        lambda x: 0.1 + 1e-5 * x**2,
        lambda x: 0.3 + 0 * x,
        lambda x: 0.05 + 1e-3 * x ** 1.5,
        lambda x: 0.1 + np.maximum(0.002 * x, 0.004 * x - 0.16),  # a kink is no step
    ],
    ids=["line", "square", "flat", "power", "kink"],
)  # fmt: skip
@pytest.mark.parametrize("own_error", [1.96 * NOISE, NOISE, None])
def test_smooth_noisy_lines_have_no_steps(shape, own_error) -> None:
    """Nearly so where intervals claim half the noise, and where there are none."""
    count = sum(len(found_at(WIDTHS, noisy(shape(WIDTHS), s), own_error)) for s in range(20))
    assert count <= (0 if own_error == 1.96 * NOISE else 1)


@given(st.integers(3, 60), st.integers(0, 10**6), st.floats(0.05, 0.5))
@settings(max_examples=60, deadline=None)
def test_a_large_step_is_found_wherever_it_is(place: int, seed: int, height: float) -> None:
    values = np.arange(64)
    true_ms = 1.0 * np.where(values > place, 1 + height, 1.0)
    assert place in found_at(values, noisy(true_ms, seed))


def test_few_points_and_uneven_ones() -> None:
    values = np.array([8, 12, 16, 32, 48, 64, 65, 70])
    true_ms = np.where(values > 32, 2.0, 1.0)
    assert found_at(values, noisy(true_ms, 1)) == [32]


def test_a_fit_covers_all_points_in_order() -> None:
    latency_ms = noisy(0.1 + np.ceil(WIDTHS / 8), 3)
    found = find_steps(WIDTHS, latency_ms, [0.01] * 97)
    assert [place for a, b in found.segments for place in range(a, b + 1)] == list(range(97))
    assert np.allclose(found.fitted_ms, latency_ms, rtol=0.03)


@pytest.mark.parametrize(
    ("values", "latency_ms", "own_error", "words"),
    [
        ([1, 2, 3], [1, 1, 1], [0.1] * 3, "4 points at least, received 3"),
        ([1, 2, 2, 4], [1, 1, 1, 1], [0.1] * 4, "increasing"),
        ([1, 2, 3, 4], [1, 1, 0, 1], [0.1] * 4, "above zero"),
        ([1, 2, 3, 4], [1, 1, 1, 1], [None] * 4, "measure more passes"),
    ],
)
def test_what_has_no_steps_is_refused(values, latency_ms, own_error, words) -> None:
    with pytest.raises(SpecError, match=words):
        find_steps(values, latency_ms, own_error)


def test_common_multiples() -> None:
    assert common_multiple([16, 24, 40], list(range(8, 48))) == 8
    assert common_multiple([16, 24], list(range(8, 48))) is None
    assert common_multiple([16, 24, 40], list(range(8, 48, 8))) is None  # all are
    assert common_multiple([7, 9, 11], list(range(20))) is None
