"""Damaged files that fuzzing found, and their kin: each is refused by name, within bounds."""

from __future__ import annotations

import io
import sqlite3
import zipfile
from pathlib import Path

import pytest
from fuzz.fuzz_readers import READERS, accepts, seeds_of
from onnx import FunctionProto, TensorProto, helper

from latlut.errors import ImportFileError, TableError
from latlut.operators.ir_files import read_ir
from latlut.operators.module_files import read_module
from latlut.operators.onnx_files import read_onnx
from latlut.table.table import LatencyTable


def with_functions(names: list[str]) -> bytes:
    """A model that calls a local function, with functions of these names."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    functions: list[FunctionProto] = [
        helper.make_function("own", name, ["a"], ["b"], body, opsets[:1]) for name in names
    ]
    graph = helper.make_graph(
        [helper.make_node("f", ["x"], ["y"], domain="own")], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )  # fmt: skip
    model = helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=9)
    return model.SerializeToString()


def test_functions_of_one_name() -> None:
    assert read_onnx(with_functions(["f", "g"])).input_shapes == ((1, 3, 8, 8),)
    with pytest.raises(ImportFileError, match="two of its functions have the same name"):
        read_onnx(with_functions(["f", "g", "g"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ALTER TABLE _sqlite_migrations RENAME COLUMN name TO nome", "column name is missing"),
        ("ALTER TABLE _sqlite_migrations RENAME COLUMN applied_at TO t", "column applied_at is"),
        ("UPDATE _sqlite_migrations SET name = x'ff' WHERE rowid = 1", "a name that is no text"),
        ("UPDATE _sqlite_migrations SET name = 7 || rowid", "made by a newer latlut"),
    ],
)
@pytest.mark.parametrize("is_writable", [False, True])
def test_a_table_that_does_not_say_which_migrations_it_had(
    tmp_path: Path, change: str, words: str, is_writable: bool
) -> None:
    path = tmp_path / "t.db"
    path.write_bytes(seeds_of("table")[0])
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    connection.close()
    with pytest.raises(TableError, match=words):
        LatencyTable.open(path, is_writable=is_writable)


def test_names_of_an_openvino_model_that_are_no_text(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    content, path = seeds_of("ir")[0], tmp_path / "m.xml"
    for name in (b'name="x"', b'names="x"'):  # OpenVINO reads some of them otherwise
        accepts(READERS["ir"], path, content.replace(name, name[:-1] + b"\xe4" + name[-1:]))
    path.write_bytes(content.replace(b'name="Constant', b'name="Consta\xe4nt'))
    path.with_suffix(".bin").write_bytes(bytes(1024))
    with pytest.raises(ImportFileError, match="not what ONNX describes|cannot be read"):
        read_ir(path, shapes={"": (1, 3, 8, 8)})


@pytest.mark.parametrize("member", ["data.pkl", "debug_pkl"])
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(b"X\xff\xff\xff\xfd", id="a text of 4 GB"),
        pytest.param(b"K\x01r\xff\xff\xff\x7f", id="2 billion things kept"),
        pytest.param(b"j\xff\xff\xff\x7f", id="the 2 billionth thing"),
    ],
)
def test_a_module_whose_pickles_claim_more_than_they_have(
    tmp_path: Path, member: str, wrong: bytes
) -> None:
    whole = zipfile.ZipFile(io.BytesIO(seeds_of("module")[0]))
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as made:
        for part in whole.infolist():
            content = whole.read(part)
            if part.filename.endswith(member):
                content = content[:2] + wrong + content[2:]
            made.writestr(part, content)
    with pytest.raises(ImportFileError, match="a damaged module"):
        read_module(path, (8, 8))


def test_a_module_with_changed_bytes(tmp_path: Path) -> None:
    content = bytearray(seeds_of("module")[0])
    content[content.index(b"training")] ^= 1
    path = tmp_path / f"m{READERS['module'].suffix}"
    path.write_bytes(content)
    with pytest.raises(ImportFileError, match="Bad CRC-32"):
        read_module(path, (8, 8))


def test_a_module_whose_code_cannot_be_unpacked(tmp_path: Path) -> None:
    content = bytearray(seeds_of("module")[0])
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        packed = next(p for p in archive.infolist() if p.filename.endswith("debug_pkl"))
        start = packed.header_offset + 30 + len(packed.filename)
    end = content.index(b"PK", start)
    for place in range(start + 40, end, 97):
        damaged = content.copy()
        damaged[place] ^= 0x55
        path = tmp_path / "m.pt"
        path.write_bytes(damaged)
        with pytest.raises(ImportFileError, match="damaged"):
            read_module(path, (8, 8))


def test_a_module_whose_archive_spans_disks(tmp_path: Path) -> None:
    with zipfile.ZipFile(path := tmp_path / "m.pt", "w") as made:
        made.writestr("archive/version", "3")
    content = path.read_bytes()
    end = content.index(b"PK\x05\x06")
    locator = b"PK\x06\x07" + bytes(12) + (9).to_bytes(4, "little")
    path.write_bytes(content[:end] + locator + content[end:])
    with pytest.raises(ImportFileError):
        read_module(path, (8, 8))
