"""The book of leases: what is to be measured, what is out, what has come back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from latlut.cluster.messages import Lease
from latlut.opspec import OpSpec

#: A group that so many workers ended with is handed out op spec by op spec.
SPLIT_AFTER = 2
#: An op spec that so many workers ended with is what ends them.
GIVE_UP_AFTER = 3


class LeaseBook:
    """Hands out what is missing; each reading is stored once, however often it is taken.

    Args:
        missing: pass index -> op specs in order.
        group: op specs per lease.
        rebuilds: builds that the passes take turns with.
    """

    def __init__(
        self, missing: Mapping[int, Sequence[OpSpec]], group: int, rebuilds: int = 1
    ) -> None:
        self._group, self._rebuilds = group, rebuilds
        self._waiting: deque[Lease] = deque()
        self._open = {(index, spec) for index, specs in missing.items() for spec in specs}
        self.total = len(self._open)
        for index, specs in missing.items():
            self._enter(index, specs)

    @property
    def open(self) -> int:
        """How many readings are missing, handed out or not."""
        return len(self._open)

    def next(self) -> Lease | None:
        """A lease of what is still missing; None where all is handed out."""
        while self._waiting:
            lease = self._waiting.popleft()
            specs = tuple(spec for spec in lease.specs if (lease.pass_index, spec) in self._open)
            if specs:
                return replace(lease, specs=specs)
        return None

    def settle(self, index: int, specs: Iterable[OpSpec]) -> set[OpSpec]:
        """Note readings of a pass; gives those that are to be stored: no duplicates."""
        fresh = {spec for spec in specs if (index, spec) in self._open}
        self._open -= {(index, spec) for spec in fresh}
        return fresh

    def drop(self, spec: OpSpec) -> None:
        """Measure an op spec no more: it failed."""
        self._open = {item for item in self._open if item[1] != spec}

    def again(self, index: int, specs: Sequence[OpSpec]) -> None:
        """Measure op specs of a pass once more, whether they were settled or not."""
        self._open |= {(index, spec) for spec in specs}
        self._enter(index, specs)

    def give_back(self, lease: Lease) -> None:
        """A lease that ended by no fault of its op specs goes first, as it was."""
        self._waiting.appendleft(lease)

    def take_back(self, lease: Lease) -> OpSpec | None:
        """A lease whose worker has ended goes first; gives an op spec that ends its workers."""
        deaths = lease.deaths + 1
        if len(lease.specs) == 1 and deaths >= GIVE_UP_AFTER:
            return lease.specs[0]
        size = 1 if deaths >= SPLIT_AFTER else len(lease.specs)
        for start in range(0, len(lease.specs), size):
            specs = lease.specs[start : start + size]
            self._waiting.appendleft(replace(lease, specs=specs, deaths=deaths))
        return None

    def _enter(self, index: int, specs: Sequence[OpSpec]) -> None:
        for start in range(0, len(specs), self._group):
            group = tuple(specs[start : start + self._group])
            self._waiting.append(Lease(index, index % self._rebuilds, group))
