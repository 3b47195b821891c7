"""Pieces of ONNX graphs in a table: kept, merged, read back without the file, looked at first."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from onnx_models import segmenter
from small_tables import make_table

from latlut.errors import SpecError, TableError
from latlut.operators import subgraph_store
from latlut.operators.onnx_cutting import by_work, cut
from latlut.operators.onnx_files import read_onnx
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.table.examination import faults
from latlut.table.merging import merge, merge_files
from latlut.table.subgraphs import (
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
