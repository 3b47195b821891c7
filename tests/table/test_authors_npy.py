"""The FasterSeg authors' pickle: what each key timed; hostile and broken files are refused."""

from __future__ import annotations

import io
import math
import os
import pickle
import struct

import numpy as np
import pytest
from checkout import AUTHORS_TABLE
from fuzzing import FUZZ, refused_or_read
from hypothesis import given
from hypothesis import strategies as st

from latlut.errors import ImportFileError
from latlut.opspec import OpSpec
from latlut.table.authors_npy import read_fasterseg_npy
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
    with pytest.raises(ImportFileError, match="larger than 10 MiB"):
        read_fasterseg_npy(path)


@pytest.mark.parametrize("name", ["missing.npy", "."])
def test_missing_files_and_folders(tmp_path, name):
    with pytest.raises(ImportFileError, match="no such file|is a folder"):
        read_fasterseg_npy(tmp_path / name)


def test_every_truncation_is_refused(write):
    data = pickled({"ff_H8_W8_C8": 1.0, "ff_H8_W8_C9": 2.0}, 4)
    for length in range(len(data)):
        with pytest.raises(ImportFileError):
            read_fasterseg_npy(write(data[:length]))


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


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numpy_scalars_are_numbers(write, kind, protocol):
    numbers = {"ff_H8_W8_C8": kind(3), "ff_H8_W8_C16": kind(2)}
    content = pickled(numbers, protocol=protocol)
    assert read_pickled_numbers(write(content, "a.npy")) == {
        k: float(v) for k, v in numbers.items()
    }
