"""How outputs are compared: which differences count, and where values are not finite."""

from __future__ import annotations

import math

import numpy as np
import pytest

from latlut.engines.parity import allowed_difference, output_difference, worst_difference

FINE = np.array([1.0, -2.0, 4.0], np.float32)
NAN, INF = np.float32("nan"), np.float32("inf")


def test_the_largest_difference_is_relative_to_the_largest_value() -> None:
    assert output_difference(FINE + 0.04, FINE) == pytest.approx(0.01, rel=1e-4)
    found, allowed = worst_difference([FINE, FINE + 0.04, FINE], [FINE] * 3, "fp32")
    assert (found, allowed) == (pytest.approx(0.01, 1e-4), 2e-3)
    assert worst_difference([], [], "fp32") == (0.0, 0.0)


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_value_that_is_not_finite_on_one_side_alone_is_a_difference_in_any_output(
    position: int, value: np.float32
) -> None:
    found = [FINE.copy() for _ in range(3)]
    found[position][1] = value
    assert math.isinf(worst_difference(found, [FINE] * 3, "int8")[0])
    assert math.isinf(worst_difference([FINE] * 3, found, "int8")[0])


def test_equal_values_that_are_not_finite_are_no_difference() -> None:
    expected = np.array([NAN, INF, -INF, 2.0], np.float32)
    assert output_difference(expected + np.float32(0.0), expected) == 0.0
    assert output_difference(np.array([NAN, INF, -INF, 2.2]), expected) == pytest.approx(0.1, 1e-4)
    assert math.isinf(output_difference(np.array([NAN, -INF, INF, 2.0]), expected))
    assert math.isinf(output_difference(np.array([INF, INF, -INF, 2.0]), expected))
    assert output_difference(np.full(3, NAN), np.full(3, NAN)) == 0.0


@pytest.mark.parametrize(
    "kind", ["bool", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64))]
)
def test_whole_numbers_are_compared_one_by_one(kind: str) -> None:
    expected = np.array([0, 1, 1, 1], kind)
    found = np.array([0, 1, 1, 0], kind)
    assert output_difference(expected, expected) == 0.0
    assert output_difference(found, expected) == 0.25


def test_large_whole_numbers_do_not_pass_through_floats() -> None:
    large = np.array([2**53 + 1, 2**63 - 1], np.int64)
    assert output_difference(large - 1, large) == 1.0
    unsigned = np.array([2**64 - 1], np.uint64)
    assert output_difference(unsigned - np.uint64(1), unsigned) == 1.0


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_floats_of_any_width(kind: str) -> None:
    assert output_difference(FINE.astype(kind), FINE.astype(kind)) == 0.0
    assert output_difference(np.zeros((0, 3), kind), np.zeros((0, 3), kind)) == 0.0


def test_one_element_in_ten_thousand_may_differ() -> None:
    expected = np.ones(20_000)
    found = expected.copy()
    found[:2] = 5.0
    assert output_difference(found, expected) == 0.0
    found[2] = 5.0
    assert output_difference(found, expected) == 4.0


def test_the_coarser_arithmetic_says_what_passes() -> None:
    whole = np.zeros(3, np.int64)
    for output in (FINE, whole):
        assert allowed_difference(output, "fp32", "int8") == allowed_difference(output, "int8")
        assert allowed_difference(output, "fp32", "fp32") < allowed_difference(output, "fp16")
    assert allowed_difference(whole, "int8") <= 0.05 < allowed_difference(FINE, "int8")


def test_the_worst_is_the_one_furthest_beyond_what_is_allowed_for_it() -> None:
    classes = np.zeros(100, np.int64)
    wrong = classes.copy()
    wrong[:10] = 1
    found, allowed = worst_difference([FINE + 0.8, wrong], [FINE, classes], "int8")
    assert (found, allowed) == (0.1, 0.05)
