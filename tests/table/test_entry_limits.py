"""Files of entries that would take all memory, and numbers that no measurement gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from latlut.errors import ImportFileError, LatlutError
from latlut.table import csv_entries, entries_file
from latlut.table.entries_file import read_entries
from latlut.table.import_export import import_file

SPEC = "conv 8->8 at 4x4"
HEAD = "op_spec,latency_ms,ci_low_ms,ci_high_ms,n,warnings\n"


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (f"{SPEC},5e-324,,,,", "latency_ms"), (f"{SPEC},1e300,,,,", "latency_ms"),
        (f"{SPEC},1,1e-300,2,,", "ci_low_ms"), (f"{SPEC},1,1,1e13,,", "ci_high_ms"),
        (f"{SPEC},1,,,9223372036854775808,", "n"), (f"{SPEC},1,,,1e300,", "n"),
        (f"{SPEC},1,,,,{'w' * 20_000}", "warnings"),
        (f"conv {','.join(['8'] * 300)}->8 at 4x4".replace(",", ";") + ",1,,,,", "op_spec"),
        (f"{SPEC} {'x' * 20_000},1,,,,", "op_spec"),
    ],
)  # fmt: skip
def test_a_cell_that_nothing_measured_is_refused(tmp_path: Path, row: str, column: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEAD + row + "\n", encoding="utf-8")
    with pytest.raises(ImportFileError, match=f"row 2, column {column}"):
        read_entries(path)


def test_differences_may_be_zero_but_not_beyond_all_measure(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for text in ("0", "-0.5"):
        path.write_text(f"op_spec,latency_ms\n{SPEC},{text}\n", encoding="utf-8")
        assert read_entries(path, "in-context").rows[0].latency_ms == float(text)
    path.write_text(f"op_spec,latency_ms\n{SPEC},-1e300\n", encoding="utf-8")
    with pytest.raises(ImportFileError, match="column latency_ms"):
        read_entries(path, "in-context")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("op_spec,latency_ms," + ",".join(f"c{n}" for n in range(60_000)) + "\n", "60002 columns"),
        ("# x\n" * 100_000 + "op_spec,latency_ms\n", "more than 1000 lines of comments"),
        ("op_spec,latency_ms\n" + f"{SPEC},1\n" * 20, "more than 9 rows"),
        ("x" * 200_000 + ",latency_ms\n", "not CSV: field larger than field limit"),
    ],
    ids=["columns", "comments", "rows", "field"],
)
def test_a_csv_of_more_than_any_table_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setattr(csv_entries, "MAX_ROWS", 9)
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ImportFileError, match=message):
        read_entries(path)


def write_parquet(path: Path, columns: dict[str, object]) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.table(columns), path, compression="zstd")


def test_a_parquet_file_that_repeats_a_row_is_refused_unread(tmp_path: Path) -> None:
    count = entries_file.MAX_ROWS + 1
    path = tmp_path / "a.parquet"
    write_parquet(path, {"op_spec": [SPEC] * count, "latency_ms": [1.0] * count})
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ImportFileError, match=f"{count} rows"):
        read_entries(path)


@pytest.mark.parametrize("column", ["warnings", "op_spec"])
def test_a_long_text_in_parquet_is_refused(tmp_path: Path, column: str) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, {"op_spec": [SPEC], "latency_ms": [1.0], column: ["w" * 500_000]})
    with pytest.raises(ImportFileError, match=f"column {column}: a text of 500000 bytes"):
        read_entries(path)


def test_a_parquet_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    specs = [f"conv 8->{n} at 4x4" for n in range(1, 1001)]
    write_parquet(path, {"op_spec": specs, "latency_ms": [1.0] * 1000})
    monkeypatch.setattr(entries_file, "MAX_FILE_BYTES", path.stat().st_size)
    with pytest.raises(ImportFileError, match="bytes when they are unpacked"):
        read_entries(path)


@pytest.mark.parametrize(
    "value", [[[1.0]], [{"a": 1.0}], [b"1.0"]], ids=["list", "struct", "bytes"]
)
def test_nested_columns_in_parquet_are_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, {"op_spec": [SPEC], "latency_ms": value})
    with pytest.raises(ImportFileError, match="column latency_ms holds"):
        read_entries(path)


@pytest.mark.parametrize("index", [5, -1])
def test_a_row_whose_text_is_not_there_is_refused(index: int) -> None:
    arrow = pytest.importorskip("pyarrow")
    column = arrow.DictionaryArray.from_arrays(
        arrow.array([0, index]), arrow.array([SPEC, "conv 8->9 at 4x4"]), safe=False
    )
    with pytest.raises(ImportFileError, match="column op_spec: damaged"):
        entries_file._cells_of(Path("a.parquet"), "op_spec", column)


def test_an_identity_that_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for identity in ('{"target": "\\ud800"}', '{"target": null}', '{"threads": -5}', '{"a": NaN}'):
        path.write_text(f"# identity: {identity}\nop_spec,latency_ms\n{SPEC},1\n")
        given = {"device_model": "x", "engine": "x", "engine_version": "1"}
        with pytest.raises(LatlutError):
            import_file(path, tmp_path / "t.db", {**given} if "target" in identity else
                        {**given, "target": "cpu"})  # fmt: skip
        assert not (tmp_path / "t.db").exists()
