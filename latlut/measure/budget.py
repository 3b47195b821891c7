"""A sweep's budget of wall time: how much is left, and how many op specs it has time for."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from latlut.measure.stopwatch import Stopwatch

#: Seconds that computing an entry takes for each of its measurements, until it was done once.
_SUMMARY_S = 4e-4
#: Seconds for each op spec of the plan, measured or not, after the last measurement: computing
#: entries, reporting how much of the plan there is, ending the process.
_END_S = 3e-5


class Budget:
    """What is left of a budget, with the time kept back that computing the entries will take.

    Args:
        seconds: of wall time since ``watch`` was started; None for no limit.
        watch: the sweep's.
        stored: measurements that the table holds already.
        planned: op specs of the plan.
    """

    def __init__(
        self, seconds: float | None, watch: Stopwatch, stored: int, planned: int = 0
    ) -> None:
        self._seconds = None if seconds is None else seconds - _END_S * planned
        self._watch = watch
        self._stored, self._summary_s = stored, _SUMMARY_S
        self._visits, self._visits_s = 0, 0.0

    @property
    def left_s(self) -> float:
        """Infinite without a limit."""
        if self._seconds is None:
            return math.inf
        return self._seconds - self._watch.elapsed_s - self._stored * self._summary_s

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self.left_s <= 0

    def group_size(self, most: int) -> int:
        """How many op specs there is time for at the pace so far: at least 1, at most ``most``.

        With a limit the first group is of one, which tells the pace.
        """
        if self._seconds is None:
            return most
        if not self._visits:
            return 1
        return max(1, min(most, int(self.left_s * self._visits / self._visits_s)))

    @contextmanager
    def visiting(self, count: int) -> Iterator[None]:
        """The block measures and stores so many op specs."""
        started = time.monotonic()
        yield
        self._visits, self._stored = self._visits + count, self._stored + count
        self._visits_s += time.monotonic() - started

    @contextmanager
    def summarising(self) -> Iterator[None]:
        """The block computes all entries."""
        started = time.monotonic()
        yield
        if self._stored:
            self._summary_s = (time.monotonic() - started) / self._stored
