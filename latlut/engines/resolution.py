"""How finely an engine's clock tells time, and how many runs share a reading for that."""

from __future__ import annotations

import math
from typing import NamedTuple

#: How finely CUDA's events tell time, seconds. Source: CUDA runtime API, cudaEventElapsedTime
#: ("a resolution of around 0.5 microseconds").
EVENT_TICK_S = 0.5e-6
#: Ticks that a reading has at least, where several runs may share it.
_TICKS_PER_READING = 100


class Resolution(NamedTuple):
    """How finely an engine's clock tells time.

    ``tick_s`` is its step in seconds, 0 where that is of no account; ``can_average`` whether
    several runs in a row may share a reading.
    """

    tick_s: float = 0.0
    can_average: bool = True

    def runs_per_reading(self, run_s: float) -> int:
        """How many runs of ``run_s`` seconds share a reading, so that a tick is 1% of it."""
        if not self.can_average:
            return 1
        return max(1, math.ceil(_TICKS_PER_READING * self.tick_s / max(run_s, 1e-9)))

    @property
    def error_s(self) -> float:
        """What a reading may be off by for the clock's sake: nothing where runs share it."""
        return 0.0 if self.can_average else self.tick_s


#: That of the host's clock.
EXACT = Resolution()
