"""A measuring process that may crash or hang, and the one that watches it.

The command forks before it has imported anything that measures. The child measures as it would
alone: same code, one process, its own clock. The parent sleeps, looks once a second whether an op
spec is overdue, and starts the next child where one died; the op spec that it died in is failed,
by name. A supervisor costs no accuracy, so there always is one where a process can be forked
safely: on Linux, from a process that has one thread.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from latlut.errors import EngineError
from latlut.measure.attempts import Attempt, Attempts

#: How long a child may take to store what it measured after Ctrl-C, seconds.
STOP_GRACE_S = 60.0
_LOOK_EVERY_S = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(frozen=True)
class Supervision:
    """What the process that measures is given."""

    attempts: Attempts = field(default_factory=Attempts)
    """Where it says what it works on."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Op spec's key -> how the process died that worked on it."""
    began_s: float = field(default_factory=time.monotonic)
    """When the first process started, by ``time.monotonic``."""

    @contextmanager
    def working_on(self, key: str) -> Iterator[None]:
        """The block is work on that one thing, from its begin.

        Raises:
            EngineError: a process died in it before.
        """
        if key in self.failed:
            raise EngineError(f"{key}: {self.failed[key]}")
        self.attempts.turn_to(None)
        self.attempts.begin_visit()
        self.attempts.turn_to(key)
        try:
            yield
        finally:
            self.attempts.turn_to(None)

    def left_of(self, budget_s: float | None) -> float | None:
        """What is left of a budget of wall time, seconds."""
        if budget_s is None:
            return None
        return max(0.0, budget_s - (time.monotonic() - self.began_s))


def supervise(timeout_s: float | None, say: Callable[[str], None]) -> Supervision | int:
    """Go on in a child that is watched; to be called before anything that measures is imported.

    Args:
        timeout_s: of one op spec in one pass; None for no limit.
        say: told of each process that died.

    Returns:
        In the child, which goes on: what it needs. In the parent, once all is done: the exit code.

    Raises:
        EngineError: a process died while it worked on no op spec, or twice on the same.
    """
    found = Supervision()
    if not _can_fork():
        return found
    failed: dict[str, str] = {}
    parent = os.getpid()
    while True:
        found.attempts.clear()
        with _blocked():
            child = _forked()
            if child == 0:
                _set_up_child(parent, found.attempts)
                return Supervision(found.attempts, failed, found.began_s)
            watch = Watch(child, found.attempts, timeout_s)
            watch.hear()
        code = watch.wait()
        if watch.stopped_by and code not in (0, 1):
            return 128 + watch.stopped_by[0]
        if found.attempts.has_ended:
            return code if code >= 0 else 128 - code  # a crash after all was done, as shells say it
        attempt = watch.attempt
        if attempt is None or attempt.key in failed:
            raise EngineError(
                f"the process that measured was {how_it_ended(code)}"
                + ("" if attempt is None else f", again with {attempt.key}")
                + "; what it measured before is in the table, the same command continues from there"
            )
        if watch.is_overdue:
            reason = f"timed out after {timeout_s:.4g} s (--timeout)"
        else:
            reason = f"the process that measured it was {how_it_ended(code)}"
        failed[attempt.key] = reason
        say(f"{attempt.key}: {reason}; going on without it")


def supervise_command(what: str, timeout_s: float | None) -> Supervision | int:
    """As ``supervise``, for a command without a table: it begins with ``what``, the networks named.

    Args:
        what: what the command works on until it turns to something else; in messages.
        timeout_s: of that, and of each thing that it turns to; None for no limit.

    Raises:
        EngineError: a process died while it worked on ``what``, or as of ``supervise``.
    """
    found = supervise(timeout_s, lambda text: None)
    if not isinstance(found, int):
        if what in found.failed:
            raise EngineError(f"{what}: {found.failed[what]}")
        found.attempts.turn_to(what)
    return found


def die_with_parent(parent: int) -> None:
    """Have the system kill this process when its parent, of that number, is gone. Linux only."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it went before that
        os._exit(1)


def _can_fork() -> bool:
    return (
        sys.platform.startswith("linux")
        and hasattr(os, "pidfd_open")
        and threading.active_count() == 1
        and not {"torch", "numpy"} & set(sys.modules)  # they start threads of their own
    )


def _forked() -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    return os.fork()


def _set_up_child(parent: int, attempts: Attempts) -> None:
    die_with_parent(parent)
    atexit.register(attempts.end)
    has_heard = False

    def stop(number: int, frame: FrameType | None) -> None:
        # Ctrl-C reaches the whole process group and the parent sends one more: one counts.
        nonlocal has_heard
        if not has_heard:
            has_heard = True
            raise KeyboardInterrupt

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


@contextmanager
def _blocked() -> Iterator[None]:
    """Signals inside the block come when it ends: then both processes know what to do."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def how_it_ended(code: int) -> str:
    """How a process ended, from its exit code as ``os.waitstatus_to_exitcode`` gives it."""
    if code >= 0:
        return f"ended by exit({code})"
    number = -code
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    memory = " (the system does so when memory runs out)" if number == signal.SIGKILL else ""
    return f"ended by {name}{memory}"


class Watch:
    """One child: what it attempts, whether that is overdue, and the signals meant for it.

    Attributes:
        attempt: the op spec that it worked on when it ended.
        is_overdue: it was killed because of that.
        stopped_by: signals that this process got; the second one kills the child.
    """

    def __init__(self, child: int, attempts: Attempts, timeout_s: float | None) -> None:
        self._child, self._attempts, self._timeout_s = child, attempts, timeout_s
        self.attempt: Attempt | None = None
        self.is_overdue = False
        self.stopped_by: list[int] = []
        self._stopped_s = 0.0
        self._seen: Attempt | None = None
        self._paused_s = 0.0
        self._before: dict[int, Any] = {}

    def hear(self) -> None:
        """Take over the signals that mean to stop; those that are ignored stay so."""
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._stop)

    def wait(self) -> int:
        """Wait for the child's end; how it ended, as ``os.waitstatus_to_exitcode`` says it."""
        try:
            paused_s, looked_s = 0.0, time.monotonic()
            descriptor = os.pidfd_open(self._child)
            while not select.select([descriptor], [], [], _LOOK_EVERY_S)[0]:
                now = time.monotonic()
                # Both processes may have been stopped for a while (Ctrl-Z): no op spec's fault.
                paused_s += max(0.0, now - looked_s - 2 * _LOOK_EVERY_S)
                looked_s = now
                self._look(now, paused_s)
            os.close(descriptor)
            _, status = os.waitpid(self._child, 0)
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)
        self.attempt = self._attempts.current()
        return os.waitstatus_to_exitcode(status)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by.append(number)
        self._stopped_s = time.monotonic()
        self._kill(signal.SIGINT if len(self.stopped_by) == 1 else signal.SIGKILL)

    def _look(self, now: float, paused_s: float) -> None:
        if self.stopped_by:
            if now - self._stopped_s > STOP_GRACE_S:
                self._kill(signal.SIGKILL)
            return
        attempt = self._attempts.current()
        if self._timeout_s is None or attempt is None:
            return
        if attempt != self._seen:
            self._seen, self._paused_s = attempt, paused_s
        if now - attempt.began_s - (paused_s - self._paused_s) > self._timeout_s:
            self.is_overdue = True
            self._kill(signal.SIGKILL)

    def _kill(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._child, number)
