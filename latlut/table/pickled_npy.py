"""Read the dict of numbers that numpy.save pickled into an .npy file, without running any of it.

The .npy header is read strictly, the pickle behind it is described by ``table.inert_pickle``, and
the description must be exactly a zero-dimensional object array around one flat dict of text to
floats, the way ``numpy.save`` writes it.
"""

from __future__ import annotations

import ast
import math
import struct
import warnings
from pathlib import Path

from latlut.errors import ImportFileError
from latlut.files.reading import read_file
from latlut.table.entry_rows import is_possible_ms
from latlut.table.inert_pickle import Inert, Refusal, describe_pickle, shown

#: 100,000 operators at 100 bytes each; the published table has 0.1 MB.
MAX_FILE_BYTES = 10 << 20
_MAX_HEADER_BYTES = 10_000
#: NumPy's types of numbers -> those of ``struct``.
_SCALARS = {
    "f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q",
    "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
}  # fmt: skip
_MAGIC = b"\x93NUMPY"


def read_pickled_numbers(path: str | Path) -> dict[str, float]:
    """The ``{text: positive float}`` that a pickled .npy file holds; nothing in it is run.

    Raises:
        ImportFileError: no such file, larger than 10 MiB, not an .npy of one pickled object, or
            a pickle with anything in it but one flat dict of text to finite positive floats.
            The message has the byte offset and what was found there.
    """
    path = Path(path)
    data = read_file(path, MAX_FILE_BYTES)
    start = _payload_start(path, data)
    try:
        return _dict_of_array(describe_pickle(data[start:]))
    except Refusal as refusal:
        raise ImportFileError(
            f"{path}: offset {start + refusal.position}: {refusal}; expected a pickled dict of "
            "text to latency in milliseconds (nothing in the file was run)"
        ) from None


def _payload_start(path: Path, data: bytes) -> int:
    """Offset of the pickle behind a strictly read .npy header.

    Source: the NPY format, numpy.lib.format: magic, version, header length, a dict literal.
    """
    if not data.startswith(_MAGIC) or len(data) < 12:
        raise ImportFileError(f"{path}: not an .npy file, it begins with {data[:8]!r}")
    version = (data[6], data[7])
    if version not in {(1, 0), (2, 0), (3, 0)}:
        raise ImportFileError(f"{path}: .npy version {version[0]}.{version[1]} is unknown")
    width = 2 if version == (1, 0) else 4
    (length,) = struct.unpack("<H" if width == 2 else "<I", data[8 : 8 + width])
    start = 8 + width + length
    if length > _MAX_HEADER_BYTES or start > len(data):
        raise ImportFileError(f"{path}: offset 8: a header of {length} bytes does not fit the file")
    text = data[8 + width : start]
    try:
        with warnings.catch_warnings():  # odd escapes are the file's fault
            warnings.simplefilter("ignore")
            header = ast.literal_eval(text.decode("utf-8").strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ImportFileError(f"{path}: offset {8 + width}: unreadable .npy header") from error
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise ImportFileError(
            f"{path}: offset {8 + width}: an .npy header has descr, fortran_order and shape"
        )
    is_one_object = header["descr"] == "|O" and header["shape"] == ()
    if not is_one_object or not isinstance(header["fortran_order"], bool):
        raise ImportFileError(
            f"{path}: offset {8 + width}: an array of another kind, {text.strip()[:100]!r}; "
            "expected one pickled dict (descr '|O', shape ())"
        )
    return start


def _dict_of_array(value: object) -> dict[str, float]:
    """The dict inside a zero-dimensional object array that ``numpy.save`` wrote."""
    match value:
        case Inert(
            "numpy.core.multiarray _reconstruct" | "numpy._core.multiarray _reconstruct",
            (
                Inert("numpy ndarray", None, []),
                (0,),
                b"b" | Inert("_codecs encode", ("b", "latin1"), []),  # so in protocol 2
            ),
            [
                (
                    1,
                    (),
                    Inert(
                        "numpy dtype",
                        ("O8" | "|O" | "O", int(), int()),
                        [(3, "|", None, None, None, -1, -1, 63)],
                    ),
                    bool(),
                    [dict(numbers)],
                )
            ],
        ):
            pass
        case Inert(name, tuple()) if name.endswith(" _reconstruct"):
            raise Refusal("not an array as numpy.save writes it, or its object is not one dict")
        case _:
            raise Refusal(f"the pickle holds {shown(value)}, not an array")
    if not numbers:
        raise Refusal("the dict is empty")
    found: dict[str, float] = {}
    for key, number in numbers.items():
        if type(key) is not str:
            raise Refusal(f"a key that is {shown(key)}, not text")
        found[key] = number if type(number) is float else _scalar(key, number)
        if not is_possible_ms(found[key]):
            raise Refusal(
                f"the latency of {key[:120]!r} is {found[key]:g} ms, which no operator takes"
            )
    kept = {id(number) for number in numbers.values()}
    if any(_is_scalar(call) and id(call) not in kept for call in value.calls):
        raise Refusal("a key that occurs twice, or a number that has none")
    return found


def _is_scalar(value: object) -> bool:
    return isinstance(value, Inert) and value.name.endswith(" scalar")


def _scalar(key: str, value: object) -> float:
    """The number that a NumPy scalar of the description is.

    Source: numpy.generic.__reduce__: ``scalar(dtype, bytes)``.
    """
    match value:
        case Inert(
            "numpy.core.multiarray scalar" | "numpy._core.multiarray scalar",
            (
                Inert("numpy dtype", (str(kind), *_), [(3, str(order), *_)]),
                bytes(raw) | Inert("_codecs encode", (str(raw), "latin1"), []),
            ),
        ) if kind in _SCALARS and order in ("<", ">", "|"):
            data = raw if isinstance(raw, bytes) else raw.encode("latin1", "replace")
            if len(data) == int(kind[1]):
                form = ("<" if order == "|" else order) + _SCALARS[kind]
                number = float(struct.unpack(form, data)[0])
                if math.isfinite(number) and number > 0:
                    return number
                raise Refusal(f"the latency of {key[:120]!r} is {number}, not positive and finite")
    raise Refusal(f"the value of {key[:120]!r} is {shown(value)}, not a number")
