"""Files of entries: CSV as people, tools and spreadsheets write it, and Parquet."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
from fuzzing import FUZZ, refused_or_read
from hypothesis import given
from hypothesis import strategies as st

from latlut.errors import ImportFileError
from latlut.opspec import OpSpec
from latlut.table.entries_file import read_entries, write_entries

GOOD = "op_spec,latency_ms\nconv 8->8 stride 1 at 4x4,0.5\n"


def frame():
    pd = pytest.importorskip("pandas")
    return pd.DataFrame(
        {
            "op_spec": ["conv 8->8 stride 1 at 4x4", "refine 8,4->4 stride 1 at 2x2,4x4"],
            "latency_ms": [0.1 + 0.2, 1e-4],
            "ci_low_ms": [0.29, None],
            "ci_high_ms": [0.31, None],
            "n": [12, 100],
            "passes": [3, 3],
            "warnings": [["is slow", "drifts"], []],
            "host": ["a", "b"],
        }
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("identity", [None, {"device_model": 'naïve, "1080"\nTi', "threads": 1}])
def test_round_trip(tmp_path, suffix, identity):
    path = tmp_path / f"entries{suffix}"
    write_entries(frame(), path, identity=identity)
    found = read_entries(path)
    # CSV knows no types
    assert str(found.identity) == str(identity).replace(
        ": 1}", ": '1'}" if suffix == ".csv" else ": 1}"
    )
    assert found.ignored_columns == ("host",)
    first, second = found.rows
    assert first.spec == OpSpec("conv", (8, 4, 4), 8)
    assert first.latency_ms == 0.1 + 0.2
    assert (first.ci_low_ms, first.ci_high_ms, first.n, first.passes) == (0.29, 0.31, 12, 3)
    assert first.warnings == "is slow; drifts"
    assert (second.ci_low_ms, second.ci_high_ms, second.warnings) == (None, None, "")
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_identity_of_the_frame_is_taken(tmp_path):
    data = frame()
    data.attrs["identity"] = {"engine": "x"}
    for name in ("a.csv", "a.parquet"):
        write_entries(data, tmp_path / name)
        assert read_entries(tmp_path / name).identity == {"engine": "x"}


def test_csv_is_read_by_pandas_and_sqlite_utils(tmp_path):
    import pandas as pd
    from sqlite_utils.utils import rows_from_file

    path = tmp_path / "a.csv"
    write_entries(frame(), path, identity={"engine": "x", "shared_error": 0.01})
    table = pd.read_csv(path)
    assert list(table["engine"]) == ["x", "x"] and list(table["n"]) == [12, 100]
    with path.open("rb") as file:
        rows, _ = rows_from_file(file)
        assert [row["passes"] for row in rows] == ["3", "3"]


CSV_HEADER = "op_spec,latency_ms,ci_low_ms,ci_high_ms,warnings,engine"
FIRST = 'conv 8->8 at 4x4,1.5,1.25,2.5,"a; b",x'
SECOND = "conv 8->16 at 4x4,3,,,,x"
OLD = '# identity: {"engine": "x", "target": "cpu"}'


def quoted(line):
    return '"' + line.replace('"', '""') + '"'


def in_cells(line, delimiter):
    """A line as a spreadsheet writes it that has split it at commas."""
    cells = line.split(",")
    return delimiter.join(quoted(c) if '"' in c or delimiter in c else c for c in cells)


SPREADSHEETS = {
    "as written": f"{CSV_HEADER}\n{FIRST}\n{SECOND}\n",
    "Windows": f"\ufeff{CSV_HEADER}\r\n{FIRST}\r\n{SECOND}\r\n",
    "old Mac": f"{CSV_HEADER}\r{FIRST}\r{SECOND}\r",
    "semicolons": f"{CSV_HEADER}\n{FIRST}\n{SECOND}\n".replace(",", ";"),
    "tabs": f"{CSV_HEADER}\n{FIRST}\n{SECOND}\n".replace(",", "\t"),
    "decimal commas": f"{CSV_HEADER}\n{FIRST}\n{SECOND}\n".replace(",", ";").replace(".", ","),
    "lines in quotes": "".join(quoted(line) + "\n" for line in (CSV_HEADER, FIRST, SECOND)),
    "some lines in quotes": f"{CSV_HEADER}\n{quoted(FIRST)}\n{SECOND}\n",
    "all cells in quotes": "".join(
        ",".join(quoted(cell.strip('"')) for cell in line.split(",")) + "\n"
        for line in (CSV_HEADER, FIRST, SECOND)
    ),
    "padded": f"{CSV_HEADER},,\n{FIRST},,\n{SECOND},,\n",
    "old first line": f"{OLD}\n{CSV_HEADER}\n{FIRST}\n{SECOND}\n",
    "old first line in cells": f"{in_cells(OLD, ',')},,,\n{CSV_HEADER}\n{FIRST}\n{SECOND}\n",
    "old first line in quotes": f"{quoted(OLD)}\n{CSV_HEADER}\n{FIRST}\n{SECOND}\n",
    "old first line, semicolons": f"{in_cells(OLD, ';')};;;\n"
    + f"{CSV_HEADER}\n{FIRST}\n{SECOND}\n".replace(",", ";"),
}


@pytest.mark.parametrize("form", SPREADSHEETS)
def test_csv_as_spreadsheets_write_it(write, form):
    found = read_entries(write(SPREADSHEETS[form], "a.csv"))
    first, second = found.rows
    assert (first.latency_ms, first.ci_low_ms, first.ci_high_ms) == (1.5, 1.25, 2.5)
    assert (first.warnings, second.latency_ms, second.ci_low_ms) == ("a; b", 3.0, None)
    assert found.identity is not None and found.identity["engine"] == "x"
    assert ("target" in found.identity) == form.startswith("old first")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("op_spec;latency_ms\nconv 8->8 at 4x4;1,5\nconv 8->16 at 4x4;1.5\n", "thousands"),
        ("op_spec;latency_ms\nconv 8->8 at 4x4;1.234,5\n", "thousands"),
        ('op_spec,latency_ms\nconv 8->8 at 4x4,"1,5"\n', "latency_ms"),
        ("op_spec,latency_ms,engine\nconv 8->8 at 4x4,1,a\nconv 8->16 at 4x4,1,b\n", "one device"),
        (OLD + "\nop_spec,latency_ms,engine\nconv 8->8 at 4x4,1,other\n", "one device"),
        ("op_spec|latency_ms\nconv 8->8 at 4x4|1\n", "no column"),
    ],
)
def test_what_spreadsheets_make_ambiguous_is_refused(write, text, message):
    with pytest.raises(ImportFileError, match=message):
        read_entries(write(text, "a.csv"))


def test_csv_as_people_write_it(write):
    text = (
        "\ufeff# made by hand\r\n"
        '# identity: {"device": "x"}\r\n'
        "latency_ms , op_spec,n\r\n"
        "\r\n"
        '2, "conv 8->8 at 4x4",\r\n'
        '3,"refine 8,4->4 at 2x2,4x4",5\r\n'
    )
    found = read_entries(write(text.replace('2, "', '2,"'), "a.csv"))
    assert found.identity == {"device": "x"}
    assert [(row.row, row.latency_ms, row.n) for row in found.rows] == [(5, 2, None), (6, 3, 5)]


BAD_CSV = {
    "empty": ("", "empty"),
    "no rows": ("op_spec,latency_ms\n", "no rows"),
    "only identity": ('# identity: {"a": 1}\n', "no column op_spec, latency_ms"),
    "missing columns": ("op,ms\n1,2\n", "no column op_spec, latency_ms; the columns are: op, ms"),
    "repeated column": ("op_spec,latency_ms,n,n\n", "column n occurs more than once"),
    "NaN": (GOOD.replace("0.5", "nan"), "row 2, column latency_ms: received 'nan'"),
    "inf": (GOOD.replace("0.5", "inf"), "row 2, column latency_ms: received 'inf'"),
    "negative": (GOOD.replace("0.5", "-1"), "received '-1', expected a positive"),
    "zero": (GOOD.replace("0.5", "0"), "received '0'"),
    "no latency": (GOOD.replace("0.5", ""), "latency_ms: received nothing"),
    "underscore": (GOOD.replace("0.5", "1_0"), "received '1_0'"),
    "text": (GOOD.replace("0.5", "fast"), "received 'fast'"),
    "op spec": (GOOD.replace("conv 8->8", "conv 8"), "row 2, column op_spec: .*reads like"),
    "op spec option": (GOOD.replace("4x4", "4x4 self=3"), "column op_spec"),
    "op spec digits": (GOOD.replace("4x4", "4x4 batch=" + "9" * 5000), "column op_spec"),
    "no op spec": (GOOD.replace("conv 8->8 stride 1 at 4x4", ""), "op_spec: received nothing"),
    "duplicate": (GOOD + "conv 8->8 at 4x4,1\n", "row 3, column op_spec: .*in row 2 already"),
    "cells": (GOOD + "conv 8->9 at 4x4,1,2\n", "row 3 has 3 cells, the header has 2"),
    "half interval": (
        "op_spec,latency_ms,ci_low_ms,ci_high_ms\nconv 8->8 at 4x4,1,0.9,\n",
        "column ci_high_ms: received nothing, expected both",
    ),
    "inverted interval": (
        "op_spec,latency_ms,ci_low_ms,ci_high_ms\nconv 8->8 at 4x4,1,1.1,0.9\n",
        "column ci_low_ms: received '1.1', expected at most the latency",
    ),
    "interval beside": (
        "op_spec,latency_ms,ci_low_ms,ci_high_ms\nconv 8->8 at 4x4,1,0.8,0.9\n",
        "column ci_high_ms: received '0.9', expected at least the latency",
    ),
    "infinite interval": (
        "op_spec,latency_ms,ci_low_ms,ci_high_ms\nconv 8->8 at 4x4,1,0.8,inf\n",
        "column ci_high_ms: received 'inf'",
    ),
    "n": ("op_spec,latency_ms,n\nconv 8->8 at 4x4,1,2.5\n", "column n: received '2.5'"),
    "passes": ("op_spec,latency_ms,passes\nconv 8->8 at 4x4,1,0\n", "column passes"),
    "identity": ("# identity: {a}\n" + GOOD, "the identity: not JSON"),
    "identity depth": (
        "# identity: " + "[" * 100_000 + "\n" + GOOD,
        "the identity: not readable",
    ),
    "identity list": ("# identity: [1]\n" + GOOD, "not a JSON object"),
    "binary": (b"\x89PNG\r\n\x1a\n\xff\xfe", "not a text file"),
    "zero bytes": (GOOD + "\0\0", "not a text file"),
    "open quote": (GOOD + '"conv', "row 3: not CSV"),
}


@pytest.mark.parametrize("name", BAD_CSV)
def test_bad_csv_is_refused_with_its_place(write, name):
    data, message = BAD_CSV[name]
    with pytest.raises(ImportFileError, match=message) as refusal:
        read_entries(write(data, "a.csv"))
    assert "a.csv" in str(refusal.value)


def test_row_numbers_count_the_identity_line(write):
    path = write('# identity: {"a": 1}\n' + GOOD + "conv 8->9 at 4x4,-1\n", "a.csv")
    with pytest.raises(ImportFileError, match="row 4, column latency_ms"):
        read_entries(path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("latency_ms", [1.0, math.nan], "row 2, column latency_ms: received 'nan'"),
        ("latency_ms", [1.0, math.inf], "row 2, column latency_ms"),
        ("latency_ms", [True, False], "row 1, column latency_ms"),
        ("latency_ms", [[1.0], [2.0]], "column latency_ms holds list"),
        ("op_spec", ["conv 8->8 at 4x4"] * 2, "in row 1 already"),
        ("n", [3, -4], "row 2, column n"),
        ("warnings", [1, 2], "row 1, column warnings"),
    ],
)
def test_bad_parquet_rows_are_refused(tmp_path, column, value, message):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    data = {"op_spec": ["conv 8->8 at 4x4", "conv 8->9 at 4x4"], "latency_ms": [1.0, 2.0]}
    parquet.write_table(arrow.table(data | {column: value}), tmp_path / "a.parquet")
    with pytest.raises(ImportFileError, match=message):
        read_entries(tmp_path / "a.parquet")


def test_parquet_without_the_columns(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ImportFileError, match="no column op_spec, latency_ms; the columns are: a"):
        read_entries(tmp_path / "a.parquet")


@pytest.mark.parametrize("data", [b"", GOOD.encode(), b"PAR1" + b"\0" * 40 + b"PAR1", b"PAR1"])
def test_parquet_that_is_not_parquet(write, data):
    with pytest.raises(ImportFileError, match="empty|not a Parquet|damaged Parquet"):
        read_entries(write(data, "a.parquet"))


def test_paths_that_are_no_file_of_entries(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    for name, message in (
        ("folder.csv", "is a folder"),
        ("none.csv", "no such file"),
        ("none.xlsx", r"\.csv or \.parquet"),
        ("none", r"\.csv or \.parquet"),
    ):
        with pytest.raises(ImportFileError, match=message):
            read_entries(tmp_path / name)


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(ImportFileError, match="no column latency_ms"):
        write_entries(frame().drop(columns="latency_ms"), path)
    with pytest.raises(ImportFileError, match="cannot be written"):
        write_entries(frame(), tmp_path / "missing" / "a.csv")
    with pytest.raises(ImportFileError, match=r"\.csv or \.parquet"):
        write_entries(frame(), tmp_path / "a.xlsx")

    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", disk_full)
    with pytest.raises(ImportFileError, match="No space left"):
        write_entries(frame(), path)
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.csv"]


@FUZZ
@given(data=st.binary(max_size=200), suffix=st.sampled_from([".csv", ".parquet"]))
def test_random_entries_files_raise_nothing_else(write, data, suffix):
    refused_or_read(read_entries, write(data, f"a{suffix}"))


@FUZZ
@given(st.text(max_size=60), st.text(max_size=20))
def test_random_cells_raise_nothing_else(write, op_spec, latency):
    text = f'op_spec,latency_ms\n"{op_spec}","{latency}"\n'
    path = write(text.encode("utf-8", errors="replace"), "a.csv")
    refused_or_read(read_entries, path)


def test_reading_loads_neither_pandas_nor_torch_nor_arrow(write):
    path = write(GOOD, "a.csv")
    code = (
        "import sys; from latlut.table.entries_file import read_entries\n"
        "from latlut.table.authors_npy import read_fasterseg_npy\n"
        f"read_entries({str(path)!r})\n"
        "assert not {'pandas', 'torch', 'pyarrow', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
