"""Printed tables: nothing is cut off at any width, and columns without values are left out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latlut.cli.layout import number_text, table_text

COLUMNS = ["op spec", "latency, ms", "95% interval", "share", "passes", "warnings"]
ROW = ["conv 64->96 stride 1 at 128x256", 1.2345, "1.211 to 1.260", "12.3%", 5, None]


def lines(columns, rows, width):
    text = table_text(columns, rows, width)
    return [*text.header, *text.body]


@settings(deadline=None)
@given(
    width=st.integers(1, 200),
    rows=st.lists(
        st.tuples(
            st.text("ab-> .:/64", max_size=60),
            st.floats(1e-9, 1e12),
            st.one_of(st.none(), st.integers(0, 10**12)),
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_no_number_and_no_word_is_ever_cut(width, rows):
    shown = lines(["name", "latency, ms", "count"], rows, width)
    words = [word for line in shown for word in line.split()]
    for name, latency, count in rows:
        for word in [*name.split(), number_text(latency), *([str(count)] if count else [])]:
            assert word in words


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_lines_fit_where_their_words_do(width):
    assert max(map(len, lines(COLUMNS, [ROW, ROW], width))) <= width


def test_without_a_width_a_row_is_one_line():
    assert len(lines(COLUMNS, [ROW, ROW], None)) == 3


def test_columns_without_values_vanish_and_single_holes_are_marked():
    (header,), body = table_text(["a", "b", "c"], [[1, None, "x"], [2, "", None]], None)
    assert header.split() == ["a", "c"]
    assert body[1].split() == ["2", "-"]


def test_numbers_stand_to_the_right():
    _, body = table_text(["name", "ms"], [["a", 1.5], ["b", 12345.6]], None)
    assert [line.split()[-1] for line in body] == ["1.5", "12346"]
    assert len({len(line) for line in body}) == 1


def test_control_codes_do_not_reach_the_terminal():
    (line,) = table_text(["name"], [["a\x1b[31mb\nc"]], None).body
    assert "\x1b" not in line
    assert "\\x1b[31mb\\nc" in line


@pytest.mark.parametrize(
    ("value", "text"), [(0.00012, "0.00012"), (1234567.8, "1234568"), (float("nan"), "-")]
)
def test_numbers_have_four_digits_and_no_exponent_above(value, text):
    assert number_text(value) == text
