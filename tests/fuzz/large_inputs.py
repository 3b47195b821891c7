"""What files of up to 10 MB cost at most: python tests/fuzz/large_inputs.py [READER ...]

Gives each reader files that are as dear as we could make them: deep, wide, repeated, or small and
large once unpacked. Each is read in a process of its own; printed are its CPU seconds and what its
memory grew by. Ends with an error where one takes more than 1 GB or 10 CPU seconds, or raises
anything but a LatlutError.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import pickle
import resource
import sqlite3
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from fuzz.fuzz_readers import READERS, accepts, seeds_of

MOST_BYTES, MOST_MB, MOST_CPU_S = 10_000_000, 1000, 10
MB = 1_000_000


@dataclass(frozen=True)
class Cost:
    """What reading a file took."""

    is_accepted: bool
    error: str
    """Of an exception that is no LatlutError."""
    cpu_s: float
    grown_mb: float


def cost_of(name: str, content: bytes) -> Cost:
    """Read a file in a process of its own, which is stopped at twice the limits."""
    assert len(content) <= MOST_BYTES
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_read, args=(name, content, theirs))
    process.start()
    theirs.close()
    try:
        return Cost(*ours.recv())
    except EOFError:
        process.join()
        return Cost(False, f"the process ended with {process.exitcode}", 0.0, 0.0)
    finally:
        process.join()


def _read(name: str, content: bytes, answer: multiprocessing.connection.Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (2 * MOST_CPU_S, 2 * MOST_CPU_S))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"large{READERS[name].suffix}"
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, started = _status("VmRSS"), os.times()
        error, is_accepted = "", False
        try:
            is_accepted = accepts(READERS[name], path, content)
        except BaseException as raised:
            error = f"{type(raised).__name__}: {raised}"[:200]
        ended = os.times()
        cpu_s = ended.user - started.user + ended.system - started.system
        answer.send((is_accepted, error, cpu_s, _status("VmHWM") - before))


def _status(name: str) -> float:
    """MB of memory, from Linux's description of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(name))


def _texts() -> dict[str, bytes]:
    """For all readers of text."""
    return {
        "zeros": bytes(MOST_BYTES),
        "brackets": b"[" * 8_000_000,
        "pairs of brackets": b"[" + b"[]," * 2_600_000 + b"[]]",
        "digits": b"9" * 8_000_000,
        "lines": b"\n" * MOST_BYTES,
        "commas": b"," * MOST_BYTES,
        "quotes": b'"' * MOST_BYTES,
    }


def _of_json() -> dict[str, bytes]:
    return {
        "objects": b"[" + b'{"a":0},' * 900_000 + b"{}]",
        "keys": b"{" + b",".join(b'"%d":0' % i for i in range(700_000)) + b"}",
        "digits": b'{"a":' + b"9" * 8_000_000 + b"}",
        "an escaped text": b'{"a":"' + b"\\u0000" * 1_300_000 + b'"}',
    }


def _architectures() -> dict[str, bytes]:
    (whole,) = seeds_of("architecture")[:1]
    values = json.loads(whole)
    found = _of_json()
    for name, value in values.items():
        if isinstance(value, list) and value:
            one = json.dumps(value[0])
            many = json.dumps(values | {name: []}).replace(
                f'"{name}": []', f'"{name}": [' + ",".join([one] * (6 * MB // (len(one) + 1))) + "]"
            )
            found[f"many {name}"] = many.encode()
    return found


def _toml() -> dict[str, bytes]:
    return {
        "dotted key": b"a" + b".a" * 3_900_000 + b" = 1",
        "dotted keys": b"".join(b"a.b%d.c.d.e = 1\n" % i for i in range(380_000)),
        "tables": b"".join(b"[a%d]\n" % i for i in range(800_000)),
        "tables in tables": b"".join(b"[a%s]\n" % (b".a" * i) for i in range(2_700)),
        "arrays of tables": b"[[grid]]\n" * 900_000,
        "array": b"batch = [" + b"1," * 3_900_000 + b"]",
        "ops": b"format = 1\nops = [" + b'"conv 8->8 at 4x4",' * 400_000 + b"]",
        "grid": b'format = 1\n[[grid]]\nkind = ["conv"]\nin_channels = ['
        + b",".join(b"%d" % i for i in range(1, 60_000)) + b"]\nout_channels = ["
        + b",".join(b"%d" % i for i in range(1, 60_000)) + b']\nsize = ["8x8"]\n',
        "text": b'format = 1\nname = """' + b"a" * 7_900_000 + b'"""',
        "hexadecimal": b"a = 0x" + b"f" * 8_000_000,
    }  # fmt: skip


def _csv() -> dict[str, bytes]:
    head, row = b"op_spec,latency_ms\n", b"conv %d->8 at 4x4,1\n"
    return {
        "rows": head + b"".join(row % i for i in range(1, 420_000)),
        "equal rows": head + (row % 8) * 450_000,
        "columns": b"op_spec,latency_ms" + b"".join(b",a%d" % i for i in range(1_200_000)),
        "comments": b"# a: 1\n" * 1_400_000,
        "commas in a comment": b"# a" + b"," * 9_000_000 + b"x\n" + head + row % 8,
        "comment": b"# identity: " + b"[" * 9_000_000,
        "long keys": head + b"".join(b"%d%s,1\n" % (i, b"9" * 100_000) for i in range(90)),
    }


def _parquet() -> dict[str, bytes]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    found = {}
    for name, rows, text in (
        ("equal rows", 40_000_000, "conv 8->8 at 4x4"),
        ("long texts", 2_000, "conv 8->8 at 4x4" + " " * 1_000_000),
        ("most rows", 999_000, "conv 8->8 at 4x4"),
    ):
        texts = arrow.DictionaryArray.from_arrays(
            arrow.array(np.zeros(rows, np.int32)), arrow.array([text])
        )
        ones = arrow.array(np.ones(rows))
        table = arrow.table({"op_spec": texts, "latency_ms": ones})
        parquet.write_table(table, buffer := io.BytesIO(), compression="zstd")
        found[name] = buffer.getvalue()
    return found


def _pickles() -> Iterator[tuple[str, bytes]]:
    """Pickles that PyTorch and NumPy would have to refuse."""
    yield "empty lists", b"\x80\x02(" + b"]" * 9_000_000 + b"l."
    yield "marks", b"\x80\x02" + b"(" * 9_000_000 + b"."
    yield "memo", b"\x80\x02]" + b"r\xff\xff\xff\x7f" * 1_900_000 + b"."
    size = struct.pack("<i", 9_000_000)
    yield "long integer", b"\x80\x02\x8b" + size + b"\x7f" * 9_000_000 + b"."
    yield "text", b"\x80\x02X" + size + b"a" * 9_000_000 + b"."
    nested = b"\x80\x02" + b"]" * 4_000_000 + b"a" * 3_999_999 + b"."
    yield "nested", nested
    yield (
        "doubling",
        b"\x80\x02]q\x00"
        + b"".join(b"(h%ch%cl" % (i, i) + b"q%c" % (i + 1) for i in range(100))
        + b".",
    )


def _npy() -> dict[str, bytes]:
    text = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n"
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
    found = {name: head + content for name, content in _pickles()}
    rows = {f"ff_H8_W16_C{i}": 0.5 for i in range(1, 300_000)}
    found["rows"] = head + pickle.dumps(rows, 2)[: MOST_BYTES - 200]
    found["header"] = b"\x93NUMPY\x02\x00" + struct.pack("<I", 9_000_000) + b"{" * 9_000_000
    return found


def _zip(members: dict[str, bytes], is_packed: bool = True) -> bytes:
    kind = zipfile.ZIP_DEFLATED if is_packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _zips() -> dict[str, bytes]:
    """For readers of archives: bombs, and more members than can be meant."""
    large = bytes(1 << 30)
    found = {
        "packed pickle": _zip({"a/data.pkl": large, "a/version": b"3"}),
        "packed storage": _zip({"a/data.pkl": b"\x80\x02N.", "a/data/0": large, "a/version": b"3"}),
        "members": _zip({f"a/{i}": b"" for i in range(90_000)}, is_packed=False),
        "packed array": _zip({"a.npy": _array_head(1 << 30) + large}),
        "packed code": _zip({"a/code/a.py": large, "a/data.pkl": b"\x80\x02N.", "a/version": b"3"}),
    }
    for name, content in _pickles():
        found[f"pickle: {name}"] = _zip({"a/data.pkl": content, "a/version": b"3"}, False)[
            :MOST_BYTES
        ]
        found[f"old pickle: {name}"] = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + content
    return found


def _array_head(size: int) -> bytes:
    np.lib.format.write_array_header_1_0(
        buffer := io.BytesIO(), {"descr": "|u1", "fortran_order": False, "shape": (size,)}
    )
    return buffer.getvalue()


def _onnx() -> dict[str, bytes]:
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node

    def model(nodes: list[object], weights: dict[str, np.ndarray] | None = None) -> bytes:
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"])
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        tensors = [numpy_helper.from_array(v, name) for name, v in (weights or {}).items()]
        graph = helper.make_graph(nodes, "g", [image], [out], tensors)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        return bytes(made.SerializeToString())

    def chain(count: int, kind: str = "Relu") -> list[object]:
        names = ["x", *(f"t{i}" for i in range(count - 1)), "y"]
        return [node(kind, [names[i]], [names[i + 1]]) for i in range(count)]

    def nested(depth: int) -> object:
        value = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
        graph = helper.make_graph([node("Relu", ["x"], ["t"])], "g", [], [value])
        for _ in range(depth):
            branches = node("If", ["k"], ["t"], then_branch=graph, else_branch=graph)
            graph = helper.make_graph([branches], "g", [], [value])
        return node("If", ["k"], ["y"], then_branch=graph, else_branch=graph)

    shape = {"s": np.array([1 << 16, 1 << 17], np.int64)}
    doubled = [node("Add", [f"d{i}" if i else "x"] * 2, [f"d{i + 1}"]) for i in range(40_000)]
    concat = [node("Concat", [f"c{i}" if i else "x"] * 2, [f"c{i + 1}"], axis=1) for i in range(34)]
    begin = numpy_helper.from_array(np.array([0.0], np.float32))
    return {
        "chain": model(chain(49_000)),
        "empty nodes": b"\x08\x08:\x80\xa4\xe8\x03" + b"\x0a\x00" * 4_000_000,
        "unused weights": model(
            chain(1), {f"w{i}": np.zeros(1, np.float32) for i in range(190_000)}
        ),
        "adds": model([*doubled, node("Relu", ["d40000"], ["y"])]),
        "concatenations": model([*concat, node("Relu", ["c34"], ["y"])]),
        "constant of shape": model([node("ConstantOfShape", ["s"], ["y"], value=begin)], shape),
        "expand": model([node("Expand", ["o", "s"], ["y"])],
                        shape | {"o": np.ones((1, 1), np.float32)}),
        "tile": model([node("Tile", ["x", "r"], ["y"])],
                      {"r": np.array([1 << 10, 1 << 10, 1 << 10, 1], np.int64)}),
        "range": model([node("Range", ["a", "b", "c"], ["y"])],
                       {"a": np.array(0), "b": np.array(1 << 40), "c": np.array(1)}),
        "nested": model([nested(12)], {"k": np.array(True)}),
        "slices": model([*(node("Shape", ["x"], [f"s{i}"]) for i in range(49_000)),
                         node("Relu", ["x"], ["y"])]),
        "long names": model([node("Relu", ["x"], ["a" * 9_000_000])]),
    }  # fmt: skip


def _png(width: int, height: int, extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + 3 * width)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    made = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra
    return made + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _pictures() -> dict[str, bytes]:
    from PIL import Image

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    bomb = zlib.compress(bytes(1 << 30), 9)
    found = {
        "most pixels": _png(5790, 5790),
        "more pixels": _png(13_000, 13_000),
        "packed text": _png(8, 8, chunk(b"zTXt", b"a\0\0" + bomb)),
        "packed texts": _png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20))) * 2000),
        "packed profile": _png(8, 8, chunk(b"iCCP", b"a\0\0" + bomb)),
        "chunks": _png(8, 8, chunk(b"abCd", b"") * 800_000),
    }
    for form in ("JPEG", "WEBP", "TIFF"):
        image = Image.new("RGB", (5790, 5790))
        more = {"compression": "tiff_lzw"} if form == "TIFF" else {}
        image.save(buffer := io.BytesIO(), form, **more)
        found[form] = buffer.getvalue()
    return found


def _inputs() -> dict[str, bytes]:
    found = {name: content for name, content in _zips().items() if "pickle" not in name}
    arrays = {f"a{i}.npy": _array_head(1) + b"a" for i in range(25_000)}
    return found | {
        "arrays": _zip(arrays, is_packed=False),
        "claimed": _zip({"a.npy": _array_head(1 << 40) + b"a"}),
    }


def _xml() -> dict[str, bytes]:
    laughs = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    (whole,) = seeds_of("ir")
    layers = whole.index(b"<layer ")
    end = whole.index(b"</layer>") + len(b"</layer>")
    return {
        "nested": b"<net>" + b"<a>" * 3_000_000,
        "elements": b"<net>" + b"<a/>" * 2_400_000 + b"</net>",
        "attributes": b"<net " + b" ".join(b'a%d=""' % i for i in range(900_000)) + b"/>",
        "entities": f'<!DOCTYPE a [<!ENTITY a0 "ha">{laughs}]><net>&a11;</net>'.encode(),
        "layers": whole[:layers] + whole[layers:end] * 5000 + whole[end:],
    }


def _tables() -> dict[str, bytes]:
    def changed(*statements: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "t.db"
            path.write_bytes(seeds_of("table")[0])
            with sqlite3.connect(path, isolation_level=None) as db:
                db.execute("PRAGMA journal_mode = DELETE")
                for statement in statements:
                    db.execute(statement)
            db.close()
            return path.read_bytes()

    endless = "WITH RECURSIVE a(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM a)"
    many = "WITH RECURSIVE a(x) AS (SELECT 2 UNION ALL SELECT x + 1 FROM a WHERE x < 40000)"
    columns = "latency_ms, ci_low_ms, ci_high_ms, passes, n, warnings, updated_at"
    return {
        "endless view": changed("DROP VIEW IF EXISTS latencies",
                                f"CREATE VIEW latencies AS {endless} SELECT x FROM a"),
        "op specs": changed(
            f"{many} INSERT INTO op_specs SELECT x, 'conv ' || x || '->8 stride 1 at 4x4', kind, x,"
            " out_channels, stride, batch, height, width, options, macs, params, moved_bytes"
            " FROM a, op_specs WHERE op_specs.id = 1"),
        "texts": changed(
            "UPDATE runs SET environment = json_object('a', hex(zeroblob(4000000)))"),
        "settings": changed(
            f"{many} UPDATE runs SET settings = (SELECT json_group_object(x, '[[]]') FROM a)"),
        "facts": changed(f"{many} INSERT INTO facts SELECT 'fact ' || x, hex(zeroblob(90)) FROM a"),
        "warnings": changed("UPDATE entries SET warnings = hex(zeroblob(4500000))"),
        "key": changed("UPDATE op_specs SET key = 'conv ' || hex(zeroblob(2000000))"),
        "columns": changed(*(f"ALTER TABLE entries ADD COLUMN a{i}" for i in range(1500))),
        "tables": changed(*(f"CREATE TABLE a{i}(x)" for i in range(2000))),
        "entries": changed(f"{many} INSERT INTO entries (op_spec_id, {columns})"
                           f" SELECT x, {columns} FROM a, entries"),
    }  # fmt: skip


def _videos() -> dict[str, bytes]:
    found = {}
    for name, codec, width, height, frames in (
        ("large", "mpeg4", 8000, 8000, 1),
        ("most pixels", "ffv1", 3800, 2200, 20),
        ("frames", "mpeg4", 64, 64, 20_000),
    ):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.mkv"
            with av.open(str(path), "w") as container:
                stream = container.add_stream(codec, rate=10, width=width, height=height)
                stream.pix_fmt = "yuv420p"
                image = av.VideoFrame(width, height, "yuv420p")
                for number in range(frames):
                    image.pts = number
                    container.mux(stream.encode(image))
                container.mux(stream.encode(None))
            found[name] = path.read_bytes()[:MOST_BYTES]
    return found


def _op_specs() -> dict[str, bytes]:
    return {
        "channels": b"refine " + b"1," * 2_000_000 + b"1->8 at 8x8",
        "options": b"conv 8->8 at 4x4" + b"".join(b" a%d=1" % i for i in range(900_000)),
        "sides": b"conv " + b"9" * 4_000_000 + b"->8 at 4x4",
        "spaces": b"conv" + b" " * 9_000_000 + b"8->8 at 4x4",
    }


#: What each reader is given beside its whole files repeated.
LARGE: dict[str, Callable[[], dict[str, bytes]]] = {
    "csv": lambda: _texts() | _csv(),
    "parquet": _parquet,
    "npy": _npy,
    "plan": lambda: _texts() | _toml(),
    "settings": lambda: _texts() | _toml(),
    "classes": lambda: _texts() | _toml(),
    "architecture": lambda: _texts() | _architectures(),
    "description": lambda: _texts() | _of_json(),
    "published": _zips,
    "checkpoint": _zips,
    "onnx": _onnx,
    "picture": _pictures,
    "inputs": _inputs,
    "module": _zips,
    "ir": lambda: _texts() | _xml(),
    "table": _tables,
    "video": _videos,
    "op_spec": lambda: _texts() | _op_specs(),
}


def repeated(content: bytes) -> bytes:
    """A whole file over and over."""
    return (content * (1 + MOST_BYTES // len(content)))[:MOST_BYTES]


def main() -> None:
    """Print a line for each reader's dearest files; end with an error beyond the limits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("readers", nargs="*", choices=[[], *LARGE])
    parser.add_argument("--all", action="store_true", help="a line for every file")
    options = parser.parse_args()
    failed = []
    for name in options.readers or LARGE:
        files = LARGE[name]() | {"repeated": repeated(seeds_of(name)[0])}
        costs = {label: cost_of(name, content) for label, content in files.items()}
        for label, cost in costs.items():
            if cost.error or cost.cpu_s > MOST_CPU_S or cost.grown_mb > MOST_MB:
                failed.append(f"{name}, {label}: {cost}")
            if options.all:
                verdict = cost.error or ("read" if cost.is_accepted else "refused")
                print(f"  {label:24} {cost.cpu_s:6.1f} s {cost.grown_mb:6.0f} MB  {verdict}")
        slow = max(costs, key=lambda label: costs[label].cpu_s)
        large = max(costs, key=lambda label: costs[label].grown_mb)
        print(
            f"{name:12} {len(costs):3} files  {costs[slow].cpu_s:5.1f} s CPU ({slow})"
            f"  {costs[large].grown_mb:5.0f} MB ({large})",
            flush=True,
        )
    if failed:
        raise SystemExit("beyond the limits:\n" + "\n".join(failed))


if __name__ == "__main__":
    main()
