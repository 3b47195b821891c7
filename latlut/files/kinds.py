"""What kind of file somebody named, for messages about files of another kind than expected."""

from __future__ import annotations

import re
from pathlib import Path

from latlut.shell import command

#: First bytes -> what the file is.
_BEGINNINGS = (
    (b"SQLite format 3\x00", "an SQLite file, as latency tables are"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"PAR1", "a Parquet file"),
    (b"ftrt", "a TensorRT engine"),
    (b"\x1f\x8b", "a compressed file (gzip)"),
)
#: An ``onnx.ModelProto``: its IR version, then the producer, the graph or the operator sets.
_MODEL_PROTO = re.compile(rb"\x08[\x01-\x14][\x12\x1a\x22\x2a\x3a\x42]")
_ARCHIVES = {
    ".npz": "NumPy arrays (.npz)",
    ".pt2": "an exported program of PyTorch",
    ".pt": "a file of PyTorch's",
    ".pth": "a file of PyTorch's",
    ".ts": "a TorchScript module",
}


def kind_of_file(path: Path) -> str:
    """``an ONNX model``, with what latlut does with such a file; empty where it cannot be told."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return ""
        with path.open("rb") as file:
            begins = file.read(512)
    except (OSError, ValueError):
        return ""
    suffix = path.suffix.lower()
    for beginning, kind in _BEGINNINGS:
        if begins.startswith(beginning):
            return kind + _use_of(path, kind)
    if begins.startswith(b"PK\x03\x04"):
        return _ARCHIVES.get(suffix, "a zip archive")
    if suffix == ".onnx" or _MODEL_PROTO.match(begins):
        return f"an ONNX model; measure it with: {command('bench', path, '--cpu')}"
    text = begins.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"<?xml", b"<net")) and (b"<net" in begins or suffix == ".xml"):
        return "a model of OpenVINO (IR)"
    if text.startswith((b"{", b"[{")):
        return "a JSON text"
    if text.startswith(b"op_spec") or b"op_spec," in text.split(b"\n")[0]:
        return f"a file of entries; {_importing(path)}"
    return ""


def _use_of(path: Path, kind: str) -> str:
    if "NumPy" in kind or "Parquet" in kind:
        return f"; if it holds entries, {_importing(path)}"
    return ""


def _importing(path: Path) -> str:
    return f"import them with: {command('table', 'import', path, '--table', 'NEW.db')}"


def but_it_is(path: Path) -> str:
    """``: it is an ONNX model``, to end a message with; empty where the kind cannot be told."""
    kind = kind_of_file(path)
    return f": it is {kind}" if kind else ""
