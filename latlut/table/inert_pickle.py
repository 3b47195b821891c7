"""Unpickle numbers by name without running anything: whatever the stream names stays a name.

A pickle is a program that can run any code. Its opcodes are listed first, with
``pickletools.genops``, which runs nothing: they must be among the few that a numpy array of one
flat dict needs, take what is there, and give each text one finite positive float. Then the
standard library's ``Unpickler`` follows them, with an ``Inert`` for every callable. All else is a
``Refusal`` that says what was found and where.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import reprlib
import struct
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

#: The only names that the stream may hold, none of which is ever looked up.
ALLOWED_NAMES = frozenset(
    {
        "numpy.core.multiarray _reconstruct",
        "numpy._core.multiarray _reconstruct",
        "numpy.core.multiarray scalar",
        "numpy._core.multiarray scalar",
        "numpy ndarray",
        "numpy dtype",
        "_codecs encode",
    }
)
#: Beside four for each number (of its text, of the memo, of itself and of the dict), and of
#: NumPy's scalars ten more for the call that makes one.
MOST_OTHER_OPCODES = 1000

_TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_PUTS = {"MEMOIZE", "BINPUT", "LONG_BINPUT"}
_GETS = {"BINGET", "LONG_BINGET"}
_TO_MARK = {"TUPLE", "APPENDS", "SETITEMS"}
_ALLOWED_OPCODES = (
    _TEXTS | _PUTS | _GETS | _TO_MARK
    | {"PROTO", "FRAME", "MARK", "STOP", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"}
    | {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "BINFLOAT"}
    | {"BINBYTES", "SHORT_BINBYTES", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
    | {"EMPTY_LIST", "APPEND", "EMPTY_DICT", "SETITEM"}
)  # fmt: skip


class Refusal(Exception):
    """What is wrong with a pickle, as a clause, and at which byte of it."""

    def __init__(self, found: str, position: int = 0) -> None:
        super().__init__(found)
        self.position = position


class Inert:
    """A callable that the stream names, or a call of one, which is not made.

    Attributes:
        name: its module and name.
        arguments: of the call; None of the callable itself.
        states: what the stream sets on the call's result.
        calls: every call that the stream makes, in order; one list for a whole stream.
    """

    __slots__ = ("arguments", "calls", "name", "states")
    __match_args__ = ("name", "arguments", "states")

    def __init__(
        self, name: str, calls: list[Inert], arguments: tuple[object, ...] | None = None
    ) -> None:
        self.name, self.calls, self.arguments = name, calls, arguments
        self.states: list[object] = []

    def __call__(self, *arguments: object) -> Inert:
        if self.arguments is not None:
            raise Refusal("a call of something that is not an allowed name")
        self.calls.append(Inert(self.name, self.calls, arguments))
        return self.calls[-1]

    def __setstate__(self, state: object) -> None:
        self.states.append(state)


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, payload: bytes, named_at: Sequence[int]) -> None:
        super().__init__(io.BytesIO(payload))
        self._named_at = iter(named_at)
        self._calls: list[Inert] = []

    def find_class(self, module: str, name: str) -> Inert:
        position = next(self._named_at)
        if f"{module} {name}" not in ALLOWED_NAMES:
            raise Refusal(_not_allowed(f"{module} {name}"), position)
        return Inert(f"{module} {name}", self._calls)


def describe_pickle(payload: bytes) -> object:
    """What a pickle of protocol 2 to 5 describes, with every callable and call left as it is.

    Returns:
        Plain values, tuples, lists and dicts of them, and ``Inert``. Lists may contain
        themselves: do not walk blindly.

    Raises:
        Refusal: an opcode, name or number that has no place in a pickled dict of numbers, a
            stream that breaks off, or bytes after its end.
    """
    with warnings.catch_warnings():  # bytes that look like odd escapes are the file's fault
        warnings.simplefilter("ignore")
        parts, named_at = _checked(payload)
    # An unpickler gives the topmost object: in a tuple around all of them none is overlooked.
    in_tuple = b"".join([pickle.MARK, *parts, pickle.TUPLE, pickle.STOP])
    try:
        objects = _InertUnpickler(in_tuple, named_at).load()
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(
            "an opcode takes a value that is not there or of another kind "
            f"({str(error)[:120]}): not an array"
        ) from error
    if len(objects) != 1:
        raise Refusal(f"{len(objects)} objects at the end of the pickle, expected one")
    return objects[0]


def _not_allowed(name: str) -> str:
    return f"it names {name[:80]!r}, which a latency table has no use for"


def _opcodes(payload: bytes) -> Iterator[tuple[str, Any, int]]:
    """Name, argument and position of each."""
    position = 0
    try:
        for opcode, argument, place in pickletools.genops(payload):
            position = int(place or 0)
            yield opcode.name, argument, position
    except (ValueError, EOFError, IndexError, OverflowError, struct.error) as error:
        found = f"the pickle breaks off or is damaged ({str(error)[:120]})"
        raise Refusal(found, position) from error


def _checked(payload: bytes) -> tuple[list[bytes], list[int]]:
    """The stream's opcodes from the first to the last, and where it names something.

    A frame only says how much to read ahead, and may lie: the parts are those between frames.
    ``key`` is the text that the next opcode would give a number to. A number is in no memo: so
    that each text with one is an item of the dict, and a repeated key is noticed.
    """
    parts: list[bytes] = []
    named_at: list[int] = []
    start = 2  # behind the protocol
    keys: set[str] = set()
    marks = filled = calls = 0
    previous = key = ""
    for count, (name, argument, position) in enumerate(_opcodes(payload)):
        found = ""
        marks += (name == "MARK") - (name in _TO_MARK)
        calls += name == "REDUCE"
        if name not in _ALLOWED_OPCODES and count:
            found = f"opcode {name} has no place in such a file"
        elif (name == "PROTO") != (count == 0):
            found = "a second PROTO opcode" if count else "not a pickle of protocol 2 to 5"
        elif name == "PROTO" and argument not in (2, 3, 4, 5):
            found = f"pickle protocol {argument} is not one of 2 to 5"
        elif name == "GLOBAL" and argument not in ALLOWED_NAMES:
            found = _not_allowed(argument)
        elif count > 4 * len(keys) + 14 * calls + MOST_OTHER_OPCODES:
            found = f"{count} opcodes for {len(keys) + calls} numbers"
        elif marks < 0:
            found = "an opcode takes values up to a mark that is not there"
        elif name in _GETS and argument >= filled:
            found = f"memo slot {argument} was never filled"
        elif name in _PUTS and (previous == "BINFLOAT" or (argument or 0) > filled):
            found = "the memo is not filled the way numpy.save does"
        elif name == "BINFLOAT" and not key:
            found = "a number whose key is not text, or that is not one dict's"
        elif name == "BINFLOAT" and key in keys:
            found = f"the key {key[:120]!r} occurs twice"
        elif name == "BINFLOAT" and not (math.isfinite(argument) and argument > 0):
            found = f"the latency of {key[:120]!r} is {argument}, not positive and finite"
        if found:
            raise Refusal(found, position)
        if name == "BINFLOAT":
            keys.add(key)
        if name in _PUTS:
            filled = max(filled, (filled if argument is None else argument) + 1)
        else:
            key = argument if name in _TEXTS else ""
        if name in ("GLOBAL", "STACK_GLOBAL"):
            named_at.append(position)
        if name in ("FRAME", "STOP"):
            parts.append(payload[start:position])
            start = position + 9
        previous = name
    if trailing := len(payload) - position - 1:
        raise Refusal(f"{trailing} bytes after the end of the pickle", position)
    if marks:
        raise Refusal("the pickle holds a mark, not an array", position)
    return parts, named_at


def shown(value: object) -> str:
    """A value in a message, in short whatever it contains."""
    return f"{type(value).__name__} {reprlib.repr(value)}"
