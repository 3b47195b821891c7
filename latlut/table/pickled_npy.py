"""Read the dict of numbers that numpy.save pickled into an .npy file, without unpickling it.

The .npy header is read strictly, the pickle behind it is described by ``table.inert_pickle``, and
the description must be exactly a zero-dimensional object array around one flat dict of text to
floats, the way ``numpy.save`` writes it.
"""

from __future__ import annotations

import ast
import struct
import warnings
from pathlib import Path

from latlut.errors import ImportFileError
from latlut.table.inert_pickle import Call, Name, Refusal, describe_pickle, shown

MAX_FILE_BYTES = 64 << 20
_MAX_HEADER_BYTES = 10_000
_MAGIC = b"\x93NUMPY"


def read_pickled_numbers(path: str | Path) -> dict[str, float]:
    """The ``{text: positive float}`` that a pickled .npy file holds, read without unpickling.

    Raises:
        ImportFileError: no such file, larger than 64 MiB, not an .npy of one pickled object, or
            a pickle with anything in it but one flat dict of text to finite positive floats.
            The message has the byte offset and what was found there.
    """
    path = Path(path)
    data = _read_bytes(path)
    start = _payload_start(path, data)
    try:
        return _dict_of_array(describe_pickle(data[start:]))
    except Refusal as refusal:
        raise ImportFileError(
            f"{path}: offset {start + refusal.position}: {refusal}; expected a pickled dict of "
            "text to latency in milliseconds (nothing in the file was run)"
        ) from None


def _read_bytes(path: Path) -> bytes:
    if not path.exists():
        raise ImportFileError(f"{path}: no such file")
    if not path.is_file():
        raise ImportFileError(f"{path}: not a file")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ImportFileError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        limit = f"{MAX_FILE_BYTES >> 20} MiB"
        raise ImportFileError(f"{path}: larger than {limit}, which no latency table is")
    return data


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


def _is_exactly(found: object, expected: tuple[object, ...]) -> bool:
    """Whether a tuple of plain values equals another, with types (1 is not True)."""
    return (
        type(found) is tuple
        and len(found) == len(expected)
        and all(type(a) is type(b) and a == b for a, b in zip(found, expected, strict=True))
    )


def _is_type_code(value: object) -> bool:
    """b"b", or the call through which protocol 2 spells it."""
    if isinstance(value, Call):
        is_encode = value.name == "_codecs encode" and not value.states
        return is_encode and _is_exactly(value.arguments, ("b", "latin1"))
    return type(value) is bytes and value == b"b"


def _is_object_dtype(value: object) -> bool:
    return (
        isinstance(value, Call)
        and value.name == "numpy dtype"
        and len(value.arguments) == 3
        and type(value.arguments[0]) is str
        and value.arguments[0] in ("O8", "|O", "O")
        and all(type(flag) in (int, bool) for flag in value.arguments[1:])
        and len(value.states) == 1
        and _is_exactly(value.states[0], (3, "|", None, None, None, -1, -1, 63))
    )


def _dict_of_array(value: object) -> dict[str, float]:
    """The dict inside the description of a zero-dimensional object array."""
    if not isinstance(value, Call) or not value.name.endswith(" _reconstruct"):
        raise Refusal(f"the pickle holds {shown(value)}, not an array")
    arguments, state = value.arguments, value.states[0] if len(value.states) == 1 else None
    is_array = (
        len(arguments) == 3
        and arguments[0] == Name("numpy ndarray")
        and _is_exactly(arguments[1], (0,))
        and _is_type_code(arguments[2])
    )
    if not is_array or type(state) is not tuple or len(state) != 5:
        raise Refusal("the array is not built the way numpy.save writes it")
    version, shape, dtype, is_fortran, items = state
    is_plain = type(version) is int and version == 1 and type(is_fortran) is bool
    if not is_plain or not _is_exactly(shape, ()) or not _is_object_dtype(dtype):
        raise Refusal("the array is not a zero-dimensional array of one object")
    if type(items) is not list or len(items) != 1 or type(items[0]) is not dict:
        raise Refusal("the array's object is not one dict")
    numbers: dict[str, float] = items[0]
    if not numbers:
        raise Refusal("the dict is empty")
    return numbers
