"""Files from outside: the FasterSeg authors' pickle, CSV and Parquet; hostile ones are refused."""

from __future__ import annotations

import io
import math
import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
from checkout import AUTHORS_TABLE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latlut.errors import ImportFileError
from latlut.opspec import OpSpec
from latlut.table.authors_npy import read_fasterseg_npy
from latlut.table.entries_file import read_entries, write_entries
from latlut.table.pickled_npy import MAX_FILE_BYTES, read_pickled_numbers

KEYS = {
    "BasicResidual1x_H32_W64_Cin256_Cout384_stride1_dilation1": "conv 256->384 at 32x64",
    "BasicResidual2x_H128_W256_Cin32_Cout48_stride1_dilation1": "conv_2x 32->48 at 128x256",
    "BasicResidual2x_H64_W128_Cin64_Cout96_stride2_dilation2": (
        "conv_2x 64->96 stride 2 at 64x128 dilation=2"
    ),
    "BasicResidual_downup_1x_H64_W128_Cin64_Cout96_stride1_dilation1": (
        "zoomed_conv 64->96 at 64x128 interpolation=nearest"
    ),
    "BasicResidual_downup_2x_H64_W128_Cin64_Cout96_stride2_dilation1": (
        "zoomed_conv_2x 64->96 stride 2 at 64x128 interpolation=nearest"
    ),
    "FactorizedReduce_H64_W128_Cin96_Cout256_stride2": (
        "skip 96->256 stride 2 at 64x128 form=single"
    ),
    "FactorizedReduce_H64_W128_Cin96_Cout128_stride1": "skip 96->96 at 64x128 form=identity",
    "FactorizedReduce_H64_W128_Cin96_Cout192_stride1": "skip 96->96 at 64x128 form=identity",
    "ConvNorm_H64_W128_Cin192_Cout96_kernel1_stride1": "conv 192->96 at 64x128 kernel_size=1",
    "ConvNorm_H1024_W2048_Cin3_Cout48_kernel3_stride2": "conv 3->48 stride 2 at 1024x2048",
    "ff_H128_W256_C128": "fusion 128->128 at 128x256",
    "head_H128_W256_Cin128_Cout19": "head 128->19 at 128x256",
}
HEADER = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"


def npy(payload, header=HEADER, version=1):
    size = struct.pack("<H" if version == 1 else "<I", len(header) + 1)
    return b"\x93NUMPY" + bytes((version, 0)) + size + header + b"\n" + payload


def pickled(value, protocol=2):
    array = np.empty((), dtype=object)
    array[()] = value
    return npy(pickle.dumps(array, protocol=protocol))


def table():
    return {key: 0.5 + index for index, key in enumerate(KEYS)}


@pytest.fixture
def write(tmp_path):
    def write(data, name="table.npy"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write


# The authors' pickle: what each key timed.


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_key_form_becomes_the_op_spec_that_was_timed(write, protocol):
    found = read_fasterseg_npy(write(pickled(table(), protocol)))
    assert {row.source_key: row.spec for row in found.rows} == {
        key: OpSpec.parse(text) for key, text in KEYS.items()
    }
    assert [row.latency_ms for row in found.rows] == list(table().values())


def test_rows_of_one_identity_are_repeats(write):
    found = read_fasterseg_npy(write(pickled(table())))
    identity = OpSpec.parse("skip 96->96 at 64x128 form=identity")
    assert found.latencies_ms()[identity] == (6.5, 7.5)
    assert len(found.latencies_ms()) == len(found.rows) - 1
    notes = {row.spec.kind: row.note for row in found.rows}
    assert "nearest" in notes["zoomed_conv"]
    assert notes["conv_2x"] == ""


def test_numpy_saves_what_is_read(write):
    buffer = io.BytesIO()
    np.save(buffer, np.array(table(), dtype=object), allow_pickle=True)
    assert len(read_fasterseg_npy(write(buffer.getvalue())).rows) == len(KEYS)


def test_shared_strings_and_many_rows(write):
    many = {f"ff_H{h}_W{w}_C8": 1.0 for h in range(1, 60) for w in range(1, 40)}
    for protocol in (2, 4):
        assert len(read_fasterseg_npy(write(pickled(many, protocol))).rows) == len(many)


def test_the_authors_table():
    if not AUTHORS_TABLE.exists():
        pytest.skip(f"the authors' table is not at {AUTHORS_TABLE}")
    found = read_fasterseg_npy(AUTHORS_TABLE)
    assert len(found.rows) == 667
    by_spec = found.latencies_ms()
    assert len(by_spec) == 605
    assert sorted(map(len, by_spec.values())) == [1] * 588 + [2] * 2 + [5] * 15
    kinds = {kind: sum(spec.kind == kind for spec in by_spec) for kind in {s.kind for s in by_spec}}
    assert kinds == {
        "conv": 151,
        "conv_2x": 129,
        "zoomed_conv": 125,
        "zoomed_conv_2x": 125,
        "skip": 65,
        "fusion": 5,
        "head": 5,
    }
    conv_2x = OpSpec.parse("conv_2x 32->32 at 128x256")
    assert by_spec[OpSpec.parse("conv 32->32 at 128x256")][0] < by_spec[conv_2x][0]
    # What two rows of one op spec differ by is noise: their relative difference is small.
    for latencies in by_spec.values():
        assert max(latencies) / min(latencies) < 1.25


# The authors' pickle: hostile and broken files.

OS_SYSTEM = b"\x80\x02cos\nsystem\nX\x0b\x00\x00\x00touch PWNED\x85R."
EXEC = b'\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x19open("PWNED","w").close()\x85R.'


def nested_global(protocol):
    """The authors' structure with a call where a latency should be."""

    class Evil:
        def __reduce__(self):
            return os.system, ("touch PWNED",)

    return pickled({"ff_H8_W8_C8": Evil()}, protocol)


HOSTILE = {
    "os.system by GLOBAL": (npy(OS_SYSTEM), "'os system'"),
    "exec by STACK_GLOBAL": (npy(EXEC), "'builtins exec'"),
    "nested, protocol 2": (nested_global(2), "system"),
    "nested, protocol 4": (nested_global(4), "system"),
    "allowed module, other name": (npy(b"\x80\x02cnumpy\nload\n."), "'numpy load'"),
    "name hidden behind a dot": (npy(b"\x80\x04\x8c\x05numpy\x8c\x0bf2py.os.foo\x93."), "f2py"),
    "INST": (npy(b"\x80\x02(S'touch PWNED'\nios\nsystem\n."), "has no place"),
    "OBJ": (npy(b"\x80\x02(cos\nsystem\nX\x01\x00\x00\x00ao."), "'os system'"),
    "NEWOBJ": (npy(b"\x80\x02cnumpy\nndarray\n)\x81."), "NEWOBJ"),
    "EXT1": (npy(b"\x80\x02\x82\x01."), "EXT1"),
    "PERSID": (npy(b"\x80\x02Pabc\n."), "PERSID"),
    "BINPERSID": (npy(b"\x80\x02X\x01\x00\x00\x00aQ."), "BINPERSID"),
    "NEXT_BUFFER": (npy(b"\x80\x05\x97."), "NEXT_BUFFER"),
    "call of a call": (npy(b"\x80\x02cnumpy\ndtype\n)R)R."), "not an allowed name"),
    "long integer": (npy(b"\x80\x02\x8b\xff\xff\x00\x00" + b"\x7f" * 65535 + b"."), "LONG4"),
    "protocol 0": (npy(b"(dp0\n."), "protocol 2 to 5"),
    "protocol 9": (npy(b"\x80\x09N."), "protocol 9"),
    "no array": (npy(b"\x80\x02}."), "not an array"),
    "empty payload": (npy(b""), "breaks off"),
    "only a mark": (npy(b"\x80\x02(."), "not an array"),
    "memo never filled": (npy(b"\x80\x02h\x07."), "memo slot 7"),
    "empty stack": (npy(b"\x80\x02R."), "not there"),
    "mark missing": (npy(b"\x80\x02t."), "mark"),
    "list in itself": (npy(b"\x80\x02]q\x00h\x00a."), "not an array"),
    "trailing bytes": (pickled(table()) + b"x", "1 bytes after"),
    "two objects": (npy(b"\x80\x02NN."), "2 objects"),
    "list": (pickled([1.0]), "not one dict"),
    "empty dict": (pickled({}), "empty"),
    "nested dict": (pickled({"ff_H8_W8_C8": {"a": 1.0}}), "not a number"),
    "whole number": (pickled({"ff_H8_W8_C8": 1}), "int 1, not a number"),
    "text value": (pickled({"ff_H8_W8_C8": "1"}), "not a number"),
    "number as key": (pickled({3: 1.0}), "not text"),
    "scalar NaN": (pickled({"ff_H8_W8_C8": np.float64("nan")}), "is nan"),
    "scalar zero": (pickled({"ff_H8_W8_C8": np.float32(0)}), "is 0.0"),
    "scalar text": (pickled({"ff_H8_W8_C8": np.str_("1")}), "not a number"),
    "scalar date": (pickled({"ff_H8_W8_C8": np.datetime64("2020", "s")}), "not a number"),
    "scalar complex": (pickled({"ff_H8_W8_C8": np.complex64(1)}), "not a number"),
    "NaN": (pickled({"ff_H8_W8_C8": math.nan}), "is nan"),
    "infinite": (pickled({"ff_H8_W8_C8": math.inf}), "is inf"),
    "zero": (pickled({"ff_H8_W8_C8": 0.0}), "is 0.0"),
    "negative": (pickled({"ff_H8_W8_C8": -1.0}), "is -1.0"),
    "unknown key": (pickled({"Pool_H8_W8_C8": 1.0}), "'Pool_H8_W8_C8' names no operator"),
    "stride 3": (pickled({"FactorizedReduce_H8_W8_Cin8_Cout8_stride3": 1.0}), "stride3"),
    "shape zero": (pickled({"ff_H0_W8_C8": 1.0}), "'ff_H0_W8_C8'.*between 1"),
    "not .npy": (b"PK\x03\x04 zip of something", "not an .npy file"),
    "empty file": (b"", "not an .npy file"),
    "npy version 9": (npy(b"", version=9), "version 9.0"),
    "header too long": (b"\x93NUMPY\x01\x00\xff\xff" + HEADER, "does not fit"),
    "header of code": (npy(b"", b"__import__('os').system('touch PWNED')"), "unreadable"),
    "header of brackets": (npy(b"", b"(" * 5000), "unreadable"),
    "header without shape": (npy(b"", b"{'descr': '|O'}"), "has descr"),
    "numeric array": (npy(b"", HEADER.replace(b"|O", b"<f8")), "another kind"),
    "array of many": (npy(b"", HEADER.replace(b"()", b"(3,)")), "another kind"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_broken_pickles_are_refused_without_side_effect(
    write, name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    called = []
    monkeypatch.setattr(os, "system", called.append)
    data, message = HOSTILE[name]
    with pytest.raises(ImportFileError, match=message) as refusal:
        read_fasterseg_npy(write(data))
    assert "table.npy" in str(refusal.value)
    assert not called
    assert sorted(item.name for item in tmp_path.iterdir()) == ["table.npy"]


def test_refusal_names_the_offset(write):
    with pytest.raises(ImportFileError, match=rf"offset {11 + len(HEADER) + 2}: it names"):
        read_fasterseg_npy(write(npy(OS_SYSTEM)))


def test_repeated_keys_are_refused(write):
    good = pickled({"ff_H8_W8_C8": 1.0, "ff_H8_W8_C9": 2.0})
    with pytest.raises(ImportFileError, match="'ff_H8_W8_C8' occurs twice"):
        read_fasterseg_npy(write(good.replace(b"C9", b"C8")))


def test_huge_files_are_refused_unread(tmp_path):
    path = tmp_path / "huge.npy"
    with path.open("wb") as file:
        file.write(b"\x93NUMPY")
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ImportFileError, match="larger than 64 MiB"):
        read_fasterseg_npy(path)


@pytest.mark.parametrize("name", ["missing.npy", "."])
def test_missing_files_and_folders(tmp_path, name):
    with pytest.raises(ImportFileError, match="no such file|not a file"):
        read_fasterseg_npy(tmp_path / name)


def test_every_truncation_is_refused(write):
    data = pickled({"ff_H8_W8_C8": 1.0, "ff_H8_W8_C9": 2.0}, 4)
    for length in range(len(data)):
        with pytest.raises(ImportFileError):
            read_fasterseg_npy(write(data[:length]))


FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def refused_or_read(read, path):
    """Whatever is in a file, reading it gives a result or ImportFileError."""
    try:
        return read(path)
    except ImportFileError as error:
        assert str(path.name) in str(error)
        return None


@FUZZ
@given(data=st.binary(max_size=300), is_npy=st.booleans())
def test_random_bytes_raise_nothing_else(write, data, is_npy):
    refused_or_read(read_fasterseg_npy, write(npy(b"\x80\x04" + data) if is_npy else data))


@FUZZ
@given(
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    protocol=st.sampled_from([2, 4, 5]),
)
def test_mutations_raise_nothing_else(write, edits, protocol):
    data = bytearray(pickled({"ff_H8_W8_C8": 1.0, "head_H8_W8_Cin8_Cout9": 2.0}, protocol))
    for place, value in edits:
        data[place % len(data)] = value
    found = refused_or_read(read_fasterseg_npy, write(bytes(data)))
    assert found is None or all(row.latency_ms > 0 for row in found.rows)


OPCODES = st.lists(
    st.sampled_from([
        b"(", b")", b"]", b"}", b"N", b"\x88", b"R", b"b", b"a", b"e", b"s", b"u", b"t", b"\x85",
        b"\x86", b"\x87", b"\x94", b"q\x00", b"h\x00", b"K\x01", b"X\x01\x00\x00\x00a", b"C\x01b",
        b"G\x3f\xf0\x00\x00\x00\x00\x00\x00", b"cnumpy\ndtype\n", b"cos\nsystem\n", b"\x93",
        b"0", b"2", b"1",
    ]),
    max_size=30,
)  # fmt: skip


@FUZZ
@given(opcodes=OPCODES)
def test_random_programs_raise_nothing_else(write, opcodes):
    path = write(npy(b"\x80\x04" + b"".join(opcodes) + b"."))
    assert refused_or_read(read_fasterseg_npy, path) is None


# CSV and Parquet.

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


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numpy_scalars_are_numbers(write, kind, protocol):
    numbers = {"ff_H8_W8_C8": kind(3), "ff_H8_W8_C16": kind(2)}
    content = pickled(numbers, protocol=protocol)
    assert read_pickled_numbers(write(content, "a.npy")) == {
        k: float(v) for k, v in numbers.items()
    }


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
    "identity": ("# identity: {a}\n" + GOOD, "identity is not JSON"),
    "identity depth": ("# identity: " + "[" * 100_000 + "\n" + GOOD, "identity is not JSON"),
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
        ("latency_ms", [[1.0], [2.0]], "row 1, column latency_ms"),
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
