"""The process on a remote machine that keeps its worker: ends it in time, and says how it ended.

It forks before anything that measures is imported, as ``measure.supervising`` does on one machine,
and sleeps. When the connection ends, so does the worker.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from types import FrameType

from latlut.measure.attempts import Attempts
from latlut.measure.supervising import Watch, die_with_parent, how_it_ended


def keep(timeout_s: float | None) -> int:
    """Run a worker until it or the connection ends; its exit code.

    Args:
        timeout_s: of one op spec in one pass; None for no limit.
    """
    attempts, parent = Attempts(), os.getpid()
    child = os.fork()
    if child == 0:
        os._exit(_work(parent, attempts))
    watch = _RemoteWatch(child, attempts, timeout_s)
    watch.hear()
    code = watch.wait()
    if code == 0 or watch.stopped_by or watch.is_hung_up():
        return 0
    attempt = watch.attempt
    if watch.is_overdue:
        reason = f"timed out after {timeout_s:.4g} s (--timeout)"
    else:
        reason = f"the process that measured it was {how_it_ended(code)}"
    _say({"type": "ended", "spec": attempt.key if attempt else None, "reason": reason})
    return 1


class _RemoteWatch(Watch):
    """Ends the worker when nobody listens any more."""

    def hear(self) -> None:
        super().hear()
        signal.signal(signal.SIGHUP, self._stop)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self._connection = select.poll()
        self._connection.register(0, select.POLLRDHUP)

    def is_hung_up(self) -> bool:
        """Whether the other end of stdin is closed."""
        return bool(self._connection.poll(0))

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by.append(number)
        self._kill(signal.SIGKILL)

    def _look(self, now: float, paused_s: float) -> None:
        if self.is_hung_up():
            self._kill(signal.SIGKILL)
        else:
            super()._look(now, paused_s)


def _work(parent: int, attempts: Attempts) -> int:
    """The worker's process; its exit code."""
    die_with_parent(parent)
    try:
        from latlut.cluster.remote_worker import serve

        serve(attempts)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0


def _say(values: dict[str, object]) -> None:
    from latlut.cluster.frames import message

    with suppress(OSError):
        os.write(1, message({**values}))
