"""Printed tables: nothing is cut off at any width, and columns without values are left out."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from latlut.cli import main
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
    (header,), body, _ = table_text(["a", "b", "c"], [[1, None, "x"], [2, "", None]], None)
    assert header.split() == ["a", "c"]
    assert body[1].split() == ["2", "-"]


def test_numbers_stand_to_the_right():
    _, body, _ = table_text(["name", "ms"], [["a", 1.5], ["b", 12345.6]], None)
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


def test_columns_that_can_be_spared_go_before_rows_become_blocks():
    wide = table_text(COLUMNS, [ROW, ROW], 80, ["passes", "share"])
    assert wide.left_out == []
    narrow = table_text(COLUMNS, [ROW, ROW], 45, ["passes", "share"])
    assert narrow.left_out == ["passes"]
    assert narrow.header and max(map(len, [*narrow.header, *narrow.body])) <= 45
    narrower = table_text(COLUMNS, [ROW, ROW], 38, ["passes", "share"])
    assert narrower.left_out == ["passes", "share"] and narrower.header
    assert not table_text(COLUMNS, [ROW, ROW], 20, ["passes", "share"]).header


@pytest.mark.parametrize(
    ("arguments", "blocks"),
    [
        (["arch", "show", "fasterseg-student"], "\n  operator: "),
        (["table", "query", "epyc4-onnxruntime-fp32", "--limit", "3"], "\n  latency, ms: "),
        (["table", "info", "epyc4-onnxruntime-fp32"], "\n  status: "),
        (["table", "info", "1080ti-fasterseg"], "\n  status: "),
        (["targets"], "\n  hardware: "),
        (["plan", "show", "tiny"], "\n  configurations: "),
        (["compare", "enet,fast-scnn", "--input", "64x128"], "\n  M parameters: "),
        (["sensitivity", "--table", "1080ti"], "\n  low, ms: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_common_tables_have_rows_in_a_usual_terminal(monkeypatch, tmp_path, arguments, blocks):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert blocks not in result.stdout
    monkeypatch.setenv("COLUMNS", "25")
    assert blocks in CliRunner().invoke(main, arguments).stdout


def test_people_read_labels_and_units_where_programs_read_names(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    target = CliRunner().invoke(main, ["targets", "1080ti"]).stdout
    assert "memory: 11.81 GB" in target and "peak, FP32: 11.3 TFLOP/s" in target
    assert "_" not in target.partition("source:")[0]
    info = CliRunner().invoke(main, ["table", "info", "epyc4-onnxruntime-fp32"]).stdout
    assert "device: " in info and "fastest, ms" in info and "measured on" in info
    for name in ("device_model", "least_ms", "mape_percent", "r12", "is_disturbed", "T03:"):
        assert name not in info
    shown = ["table", "query", "epyc4-onnxruntime-fp32", "--limit", "1"]
    assert CliRunner().invoke(main, shown).stdout.startswith("operator configuration")
    CliRunner().invoke(main, [*shown, "--csv", "x.csv"])
    assert (tmp_path / "x.csv").read_text().startswith("op_spec,latency_ms,ci_low_ms,")
    named = CliRunner().invoke(main, [*shown, "--columns", "op_spec,n"]).stdout
    assert named.split()[:2] == ["op_spec", "n"]
