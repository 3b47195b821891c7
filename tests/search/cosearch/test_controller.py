"""The controller of lambda settles a simulated search at its target, from both sides."""

from __future__ import annotations

import math

import pytest

from latlut.errors import SpecError
from latlut.search.cosearch.controller import RANGE, LambdaController


def simulate(first: float, start_ms: float, epochs: int = 60) -> list[float]:
    """A search as a plant: the loss pulls the latency up, lambda pulls it down."""
    controller = LambdaController(first, target_ms=8.0)
    latency_ms, seen = start_ms, []
    for _ in range(epochs):
        controller = controller.after(latency_ms)
        pull = 0.3 - 0.3 * controller.value / 0.01  # balance at lambda = 0.01
        latency_ms = min(20.0, max(2.0, latency_ms * math.exp(0.5 * math.tanh(pull))))
        seen.append(latency_ms)
    return seen


@pytest.mark.parametrize("first", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("start_ms", [3.0, 18.0])
def test_the_latency_settles_at_the_target(first: float, start_ms: float) -> None:
    tail = simulate(first, start_ms)[-10:]
    assert all(abs(latency_ms / 8.0 - 1) < 0.02 for latency_ms in tail)


def test_halving_and_doubling_at_bounds_swings_more_than_the_controller() -> None:
    latency_ms, value, seen = 18.0, 0.001, []
    for _ in range(60):  # the paper's rule: bounds 5% around the target
        value *= 2 if latency_ms > 8.4 else 0.5 if latency_ms < 7.6 else 1
        pull = 0.3 - 0.3 * value / 0.01
        latency_ms = min(20.0, max(2.0, latency_ms * math.exp(0.5 * math.tanh(pull))))
        seen.append(latency_ms)
    ours = simulate(0.001, 18.0)
    assert max(abs(math.log(ms / 8)) for ms in ours[-20:]) < max(
        abs(math.log(ms / 8)) for ms in seen[-20:]
    )


def test_slower_than_the_target_raises_lambda_and_faster_lowers_it() -> None:
    start = LambdaController(0.01, target_ms=8.0)
    assert start.after(10.0).value > 0.01 > start.after(6.0).value
    assert start.after(8.0).value == pytest.approx(0.01)


def test_lambda_stays_in_its_range_and_comes_back() -> None:
    controller = LambdaController(0.01, target_ms=8.0)
    for _ in range(200):
        controller = controller.after(2.0)
    assert controller.value == pytest.approx(0.01 / RANGE)
    for _ in range(30):
        controller = controller.after(20.0)
    assert controller.value > 0.01


def test_a_lambda_of_zero_stays_zero() -> None:
    assert LambdaController(0.0, target_ms=8.0).after(100.0).value == 0.0


def test_its_state_survives_a_round_trip() -> None:
    controller = LambdaController(0.01, target_ms=8.0).after(9.0).after(7.0)
    again = LambdaController(0.01, target_ms=8.0).restored(controller.to_dict())
    assert again == controller
    assert again.after(8.5) == controller.after(8.5)


def test_impossible_values_are_refused() -> None:
    with pytest.raises(SpecError, match="target positive"):
        LambdaController(0.01, target_ms=0.0)
    with pytest.raises(SpecError, match="latency is positive"):
        LambdaController(0.01, target_ms=8.0).after(0.0)
