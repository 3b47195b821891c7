"""Follow a pickle's opcodes without unpickling: nothing is imported, nothing is called.

A pickle is a program that can run any code. Here its opcodes are listed with
``pickletools.genops``, which runs nothing, and followed by an interpreter that knows the few
opcodes that a numpy array of one flat dict needs. A callable named in the stream stays a ``Name``,
a call of it a ``Call``, and a dict holds nothing but text to finite positive floats. All else is a
``Refusal`` that says what was found and where.
"""

from __future__ import annotations

import math
import pickletools
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

#: The only names that the stream may hold, none of which is ever looked up.
ALLOWED_NAMES = frozenset(
    {
        "numpy.core.multiarray _reconstruct",
        "numpy._core.multiarray _reconstruct",
        "numpy ndarray",
        "numpy dtype",
        "_codecs encode",
    }
)


@dataclass(frozen=True)
class Name:
    """A callable that the stream names; nothing but the name is kept."""

    text: str


@dataclass(eq=False)
class Call:
    """A call that the stream asks for and that is not made, with the state set on its result."""

    name: str
    arguments: tuple[object, ...]
    states: list[object] = field(default_factory=list)


class _Mark:
    """Where the arguments of a later opcode begin on the stack."""


_MARK = _Mark()


class Refusal(Exception):
    """What is wrong with a pickle, as a clause, and at which byte of it."""

    def __init__(self, found: str, position: int = 0) -> None:
        super().__init__(found)
        self.position = position


def describe_pickle(payload: bytes) -> object:
    """What a pickle of protocol 2 to 5 describes, with every callable and call left as it is.

    Returns:
        Plain values, tuples and lists of them, dicts of text to finite positive floats,
        ``Name`` and ``Call``. Lists may contain themselves: do not walk blindly.

    Raises:
        Refusal: an opcode, name or value that has no place in a pickled dict of numbers, a
            stream that breaks off, or bytes after its end.
    """
    interpreter = _Interpreter(payload)
    with warnings.catch_warnings():  # bytes that look like odd escapes are the file's fault
        warnings.simplefilter("ignore")
        try:
            return interpreter.run()
        except Refusal as refusal:
            refusal.position = interpreter.position
            raise


class _Interpreter:
    """The stack and memo of a pickle; ``run`` follows the opcodes to the end."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.position = 0  # of the current opcode
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}

    def _opcodes(self) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
        operations = pickletools.genops(self.payload)
        while True:
            try:
                opcode, argument, position = next(operations)
            except StopIteration:
                return
            except (ValueError, EOFError, IndexError, OverflowError, struct.error) as error:
                found = f"the pickle breaks off or is damaged ({str(error)[:120]})"
                raise Refusal(found) from error
            self.position = int(position or 0)
            yield opcode, argument

    def run(self) -> object:
        is_first = True
        for opcode, argument in self._opcodes():
            name = opcode.name
            if is_first and name != "PROTO":
                raise Refusal("not a pickle of protocol 2 to 5")
            if not is_first and name == "PROTO":
                raise Refusal("a second PROTO opcode")
            is_first = False
            if name == "STOP":
                return self._finish()
            if name in _PLAIN_VALUES:
                self.stack.append(argument)
            elif name in _HANDLERS:
                _HANDLERS[name](self, argument)
            else:
                raise Refusal(f"opcode {name} ({shown(argument)}) has no place in such a file")
        raise Refusal("the pickle has no end")

    def _finish(self) -> object:
        trailing = len(self.payload) - self.position - 1
        if trailing:
            raise Refusal(f"{trailing} bytes after the end of the pickle")
        if len(self.stack) != 1:
            raise Refusal(f"{len(self.stack)} objects at the end of the pickle, expected one")
        return self.stack[0]

    def pop(self) -> object:
        if not self.stack or self.stack[-1] is _MARK:
            raise Refusal("an opcode takes a value that is not there")
        return self.stack.pop()

    def pop_to_mark(self) -> list[object]:
        items: list[object] = []
        while self.stack and self.stack[-1] is not _MARK:
            items.append(self.stack.pop())
        if not self.stack:
            raise Refusal("an opcode takes values up to a mark that is not there")
        self.stack.pop()
        return items[::-1]

    def top(self) -> object:
        if not self.stack or self.stack[-1] is _MARK:
            raise Refusal("an opcode needs a value that is not there")
        return self.stack[-1]

    def push_name(self, text: str) -> None:
        if text not in ALLOWED_NAMES:
            raise Refusal(f"it names {text[:80]!r}, which a latency table has no use for")
        self.stack.append(Name(text))

    def stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise Refusal("a name that is not text")
        self.push_name(f"{module} {name}")

    def protocol(self, argument: Any) -> None:
        if argument not in (2, 3, 4, 5):
            raise Refusal(f"pickle protocol {argument} is not one of 2 to 5")

    def memoise(self, slot: Any) -> None:
        self.memo[len(self.memo) if slot is None else slot] = self.top()

    def recall(self, slot: Any) -> None:
        if slot not in self.memo:
            raise Refusal(f"memo slot {slot} was never filled")
        self.stack.append(self.memo[slot])

    def make_tuple(self, length: int | None) -> None:
        if length is None:
            items = self.pop_to_mark()
        else:
            items = [self.pop() for _ in range(length)][::-1]
        self.stack.append(tuple(items))

    def reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise Refusal("a call of something that is not an allowed name")
        self.stack.append(Call(function.text, arguments))

    def build(self, _: Any) -> None:
        state, target = self.pop(), self.top()
        if not isinstance(target, Call):
            raise Refusal("a state set on something that is not an array or a dtype")
        target.states.append(state)

    def append(self, items: list[object]) -> None:
        target = self.top()
        if type(target) is not list:
            raise Refusal("an item appended to something that is not a list")
        target.extend(items)

    def set_items(self, items: list[object]) -> None:
        target = self.top()
        if type(target) is not dict or len(items) % 2:
            raise Refusal("an item set on something that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                raise Refusal(f"a key that is {shown(key)}, not text")
            if type(value) is not float:
                raise Refusal(f"the value of {key[:120]!r} is {shown(value)}, not a float")
            if not (math.isfinite(value) and value > 0):
                raise Refusal(f"the latency of {key[:120]!r} is {value}, not positive and finite")
            if key in target:
                raise Refusal(f"the key {key[:120]!r} occurs twice")
            target[key] = value

    def set_item(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])


_PLAIN_VALUES = frozenset(
    {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES"}
    | {"BININT", "BININT1", "BININT2", "BINFLOAT"}
)
_HANDLERS: dict[str, Callable[[_Interpreter, Any], None]] = {
    "PROTO": _Interpreter.protocol,
    "FRAME": lambda machine, size: None,
    "GLOBAL": lambda machine, text: machine.push_name(str(text)),
    "STACK_GLOBAL": _Interpreter.stack_global,
    "MEMOIZE": _Interpreter.memoise,
    "BINPUT": _Interpreter.memoise,
    "LONG_BINPUT": _Interpreter.memoise,
    "BINGET": _Interpreter.recall,
    "LONG_BINGET": _Interpreter.recall,
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "TUPLE": lambda machine, _: machine.make_tuple(None),
    "TUPLE1": lambda machine, _: machine.make_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_tuple(3),
    "REDUCE": _Interpreter.reduce,
    "BUILD": _Interpreter.build,
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": _Interpreter.set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
}


def shown(value: object) -> str:
    """A value in a message: plain ones in short, containers by type alone (they may be deep)."""
    if isinstance(value, (str, bytes)):
        return f"{type(value).__name__} {value[:80]!r}"
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 64):
        return f"{type(value).__name__} {value!r}"
    return "nothing" if value is None else f"a {type(value).__name__.strip('_').lower()}"
