"""Pieces of ONNX graphs in a table: kept, merged, read back without the file, looked at first."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from onnx_models import segmenter
from small_tables import make_table

from latlut.errors import ImportFileError, SpecError, TableError
from latlut.operators import subgraph_store
from latlut.operators.onnx_cutting import by_work, cut
from latlut.operators.onnx_files import read_onnx
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.table.examination import faults
from latlut.table.import_export import export_file, import_file
from latlut.table.merging import merge, merge_files
from latlut.table.subgraphs import (
    count_without_graph,
    cut_of,
    keep_cut,
    keep_graphs,
    learn_graphs,
    shown_keys,
    stored_pieces,
)
from latlut.table.table import LatencyTable


@pytest.fixture
def specs() -> tuple[OpSpec, ...]:
    return cut(read_onnx(segmenter()), by_work).op_specs()


@pytest.fixture
def path(tmp_path: Path, specs: tuple[OpSpec, ...]) -> Path:
    found = tmp_path / "pieces.db"
    with make_table(found, specs) as table:
        keep_graphs(table, specs)
        keep_graphs(table, specs)  # what is there stays
    return found


def change(path: Path, sql: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    connection.execute(sql, values)
    connection.commit()
    connection.close()


def test_a_graph_is_read_from_the_table_alone(
    path: Path, specs: tuple[OpSpec, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subgraph_store, "_STORE", {})
    with pytest.raises(SpecError, match="not known here"):
        Workload.from_spec(specs[0])
    with LatencyTable.open(path) as table:
        assert stored_pieces(table) == specs
        learn_graphs(table, specs)
        assert faults(table) == []
        names = shown_keys(table, [specs[0].key, "conv 8->8 stride 1 at 8x8"])
    assert Workload.from_spec(specs[0]).input_shapes == ((1, 3, 16, 24),)
    assert names[specs[0].key].startswith("Conv 3->4 3x3 s2 + Relu at 8x12 [")
    assert names["conv 8->8 stride 1 at 8x8"] == "conv 8->8 stride 1 at 8x8"


def test_graphs_come_along_in_a_merge(
    path: Path, tmp_path: Path, specs: tuple[OpSpec, ...]
) -> None:
    merge_files(tmp_path / "all.db", [path])
    with LatencyTable.open(tmp_path / "all.db") as table:
        assert stored_pieces(table) == specs
        assert all(spec in table for spec in specs)


@pytest.mark.parametrize(
    "sql, values",
    [
        ("UPDATE subgraphs SET graph = ?", (b"no graph",)),
        ("UPDATE subgraphs SET digest = ? WHERE rowid = 1", ("0" * 40,)),
        ("UPDATE subgraphs SET label = ?", ("another piece",)),
        ("UPDATE subgraphs SET digest = ? WHERE rowid = 1", ("../../etc",)),
        ("UPDATE subgraphs SET graph = ?", ("text",)),
    ],
)
def test_a_strangers_graphs_are_looked_at(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str, values: tuple[object]
) -> None:
    with LatencyTable.open(path) as table:
        specs = stored_pieces(table)
    change(path, sql, *values)
    monkeypatch.setattr(subgraph_store, "_STORE", {})
    with LatencyTable.open(path) as table:
        assert len(faults(table)) == 1
        with (
            make_table(tmp_path / "own.db", []) as own,
            pytest.raises(TableError, match="subgraphs|the graph"),
        ):
            merge(own, table)
        if "SET graph" in sql:
            with pytest.raises(TableError):
                learn_graphs(table, specs)
                table.lookup(specs[0])


def test_a_table_keeps_to_one_way_of_cutting(path: Path) -> None:
    with LatencyTable.open(path, is_writable=True) as table:
        assert cut_of(table) == "work"
        keep_cut(table, "layers")
        keep_cut(table, "layers")
        assert cut_of(table) == "layers"
        with pytest.raises(TableError, match="cut by layers"):
            keep_cut(table, "work")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_of_entries_carries_graphs_and_cut(
    path: Path, tmp_path: Path, specs: tuple[OpSpec, ...], monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:  # fmt: skip
    file, copy = tmp_path / f"entries{suffix}", tmp_path / "copy.db"
    with LatencyTable.open(path, is_writable=True) as table:
        keep_cut(table, "layers")
        export_file(table, file)
    monkeypatch.setattr(subgraph_store, "_STORE", {})
    report = import_file(file, copy)
    assert not any("graphs" in text for text in report.remarks)
    with LatencyTable.open(copy) as table:
        assert (stored_pieces(table), cut_of(table)) == (specs, "layers")
        assert count_without_graph(table) == 0
        assert faults(table) == []
        learn_graphs(table, specs)
    assert Workload.from_spec(specs[0]).input_shapes == ((1, 3, 16, 24),)


def test_a_graph_in_a_file_of_entries_is_looked_at(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "entries.csv"
    with LatencyTable.open(path) as table:
        export_file(table, file)
    head, first, second, *_ = file.read_text().splitlines()
    place = head.split(",").index("graph") - len(head.split(","))
    cells, others = first.rsplit(",", -place), second.rsplit(",", -place)
    for wrong in ("no base64", "AAAA", others[1]):
        file.write_text("\n".join([head, ",".join([cells[0], wrong, *cells[2:]])]))
        with pytest.raises(ImportFileError, match="row 2, column graph"):
            import_file(file, tmp_path / "new.db")
    file.write_text("\n".join([head, ",".join([cells[0], "", *cells[2:]])]))
    report = import_file(file, tmp_path / "bare.db")
    assert any("1 pieces of ONNX files came without their graphs" in t for t in report.remarks)
    with LatencyTable.open(tmp_path / "bare.db") as table:
        assert count_without_graph(table) == 1
    file.write_text(file.read_text().replace(",work", ",sideways"))
    with pytest.raises(ImportFileError, match="onnx_cut is work or layers, received 'sideways'"):
        import_file(file, tmp_path / "none.db")


def test_pieces_of_different_cuts_are_not_merged(path: Path, tmp_path: Path) -> None:
    merge_files(tmp_path / "other.db", [path])
    for name, cut_by in ((path, "work"), (tmp_path / "other.db", "layers")):
        with LatencyTable.open(name, is_writable=True) as table:
            keep_cut(table, cut_by)
    with pytest.raises(TableError, match="cut by work.*cut by layers.*keep two tables"):
        merge_files(tmp_path / "other.db", [path])
