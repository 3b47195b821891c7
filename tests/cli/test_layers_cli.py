"""What ``latlut layers`` prints of differences."""

from __future__ import annotations

import pytest

from latlut.cli.layers import difference_text


@pytest.mark.parametrize(
    "ms, text",
    [
        (-9.8e-05, "-0.000098"),
        (0.003477, "+0.00348"),
        (-3.331, "-3.33"),
        (12345.6, "+12300"),
        (1e-6, "+0.000001"),
        (4e-7, "0.000"),
        (0.0, "0.000"),
        (-0.84, "-0.84"),
    ],
)
def test_differences_have_three_digits_and_no_exponent(ms: float, text: str) -> None:
    assert difference_text(ms) == text
