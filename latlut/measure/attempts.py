"""What is being attempted: the op spec that a process works on, where another process reads it.

The record lies in memory that the measuring process shares with the one that started it, so it
outlasts whatever ends the first. Keeping it is a copy of a few bytes: no call of the system, and
nobody is woken.
"""

from __future__ import annotations

import mmap
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from latlut.measure.timing import SampleNs

_SIZE = 1 << 14
_HEAD = struct.Struct("<?QdH")  # has ended, measured, began at, length of the key in bytes
_KEY = struct.Struct("<dH")
_KEY_AT = _HEAD.size - _KEY.size


class Attempt(NamedTuple):
    """An op spec's key, and when the attempt began by ``time.monotonic``, pauses left out."""

    key: str
    began_s: float


class Attempts:
    """The record, kept by the process that measures and read by its supervisor.

    Attributes:
        measured: readings that were stored, by this process and by those before it.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SIZE)  # shared with the processes that are forked later
        self._key: str | None = None
        self._began_s = 0.0
        self._spent_s: dict[str, float] = {}

    @property
    def measured(self) -> int:
        return int(_HEAD.unpack_from(self._memory)[1])

    def add_measured(self, count: int) -> None:
        """Count readings that are in the table now."""
        has_ended, measured, began_s, length = _HEAD.unpack_from(self._memory)
        _HEAD.pack_into(self._memory, 0, has_ended, measured + count, began_s, length)

    def begin_visit(self) -> None:
        """From here on no op spec has taken any time."""
        self._spent_s.clear()

    def turn_to(self, key: str | None) -> None:
        """What follows is work on this op spec, or on none. Turns of one visit are added up."""
        if key == self._key:
            return
        now = time.monotonic()
        if self._key is not None:
            self._spent_s[self._key] = now - self._began_s
        self._key = key
        _KEY.pack_into(self._memory, _KEY_AT, 0.0, 0)  # no reader sees a key with another's time
        if key is None:
            return
        self._began_s = now - self._spent_s.get(key, 0.0)
        text = key.encode()[: _SIZE - _HEAD.size]
        self._memory[_HEAD.size : _HEAD.size + len(text)] = text
        _KEY.pack_into(self._memory, _KEY_AT, self._began_s, len(text))

    def told(self, key: str, sample_ns: SampleNs) -> SampleNs:
        """A sampler that turns to its op spec before it runs."""

        def told(count: int, runs: int = 1) -> np.ndarray:
            self.turn_to(key)
            return sample_ns(count) if runs == 1 else sample_ns(count, runs)

        return told

    def end(self) -> None:
        """The process ends as it should."""
        self._memory[0] = 1

    @property
    def has_ended(self) -> bool:
        """Whether ``end`` was called."""
        return bool(self._memory[0])

    def current(self) -> Attempt | None:
        """What is attempted; None where nothing is, or where it changes at this moment."""
        before = self._memory[: self._length_with_head()]
        if before != self._memory[: self._length_with_head()]:
            return None
        began_s, length = _KEY.unpack_from(before, _KEY_AT)
        if not length:
            return None
        return Attempt(before[_HEAD.size :].decode(errors="replace"), began_s)

    def clear(self) -> None:
        """Before another process takes over: nothing is attempted."""
        self._memory[0] = 0
        _KEY.pack_into(self._memory, _KEY_AT, 0.0, 0)

    def _length_with_head(self) -> int:
        return _HEAD.size + int(_KEY.unpack_from(self._memory, _KEY_AT)[1])
