"""Who is slow: each worker's sentinels beside those of the others."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Mapping

import numpy as np

from latlut.opspec import OpSpec
from latlut.stats.machine_speed import relative_speed

#: A worker whose sentinels are so many times as slow as the others' measures another device.
SLOW_DEVICE = 1.10
#: Readings of each sentinel that a worker is judged by, the latest ones, and the fewest of them.
RECENT, FEWEST = 9, 3

_Recent = dict[OpSpec, deque[float]]


class Pace:
    """Recent sentinel readings of workers.

    Args:
        usual_ms: what sentinels took in earlier runs of the table, one more to compare with.
    """

    def __init__(self, usual_ms: Mapping[OpSpec, float]) -> None:
        self._usual_ms = dict(usual_ms)
        self._recent: dict[Hashable, _Recent] = defaultdict(dict)

    def add(self, worker: Hashable, readings: Iterable[tuple[OpSpec, int, float]]) -> None:
        """Note what sentinels read beside a lease: (op spec, group, milliseconds)."""
        for spec, _, reading_ms in readings:
            self._recent[worker].setdefault(spec, deque(maxlen=RECENT)).append(reading_ms)

    def forget(self, worker: Hashable) -> None:
        """Compare with a worker no more."""
        self._recent.pop(worker, None)

    def ratio(self, worker: Hashable, fewest: int = FEWEST) -> float:
        """How many times as slow a worker is as the others; 1 where there are none to compare with.

        The others are stood for by the lower median of all workers: with two it is the faster one,
        and at least half of the workers are never slower than it.

        Args:
            worker: which.
            fewest: readings of a sentinel that say anything.
        """
        levels = {name: _levels(recent, fewest) for name, recent in self._recent.items()}
        levels = {name: known for name, known in levels.items() if known}
        if len(levels) < 2:
            return 1.0
        pairs = []
        for spec, level_ms in levels.get(worker, {}).items():
            all_ms = [known[spec] for known in levels.values() if spec in known]
            all_ms += [self._usual_ms[spec]] if spec in self._usual_ms else []
            pairs.append((level_ms, sorted(all_ms)[(len(all_ms) - 1) // 2]))
        return relative_speed(pairs) if pairs else 1.0


def _levels(recent: _Recent, fewest: int) -> dict[OpSpec, float]:
    return {
        spec: float(np.median(list(values)))
        for spec, values in recent.items()
        if len(values) >= fewest
    }
