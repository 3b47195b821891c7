"""What a table already holds of a sweep, and what is left to measure."""

from __future__ import annotations

import random
from dataclasses import dataclass

from latlut.errors import SpecError
from latlut.measure.parts import Part
from latlut.measure.plans import Plan
from latlut.operators.registry import operator_kinds
from latlut.opspec import OpSpec
from latlut.table import history
from latlut.table.table import LatencyTable


@dataclass(frozen=True)
class Work:
    """What to do: ``missing``, pass index -> op specs in order; ``reused`` readings are there."""

    missing: dict[int, list[OpSpec]]
    reused: int

    @property
    def total(self) -> int:
        """How many readings are missing."""
        return sum(len(specs) for specs in self.missing.values())


def work_of(
    table: LatencyTable | None, plan: Plan, part: Part, passes: int, rebuilds: int, seed: int
) -> Work:
    """What the table lacks of a part of the plan, each pass in a random order of its own.

    A table of None holds nothing.

    With several builds, pass p is there if build p modulo ``rebuilds`` was measured in it; with
    one, whichever build was.
    """
    visits = [] if table is None else history.visits(table)
    there = {(key, index, build if rebuilds > 1 else 0) for key, index, build in visits}
    missing: dict[int, list[OpSpec]] = {}
    reused = 0
    for index in range(passes):
        owned = [
            spec for position, spec in enumerate(plan.specs) if part.owns(position, index, rebuilds)
        ]
        specs = [spec for spec in owned if (spec.key, index, index % rebuilds) not in there]
        random.Random(f"{seed}/{index}").shuffle(specs)
        reused += len(owned) - len(specs)
        if specs:
            missing[index] = specs
    return Work(missing, reused)


def table_sentinels(table: LatencyTable) -> tuple[OpSpec, ...]:
    """Those of earlier runs: what is added later is tied to the same usual speed.

    Raises:
        SpecError: one is of an operator that is not registered: without it what is added could not
            be compared with what is there.
    """
    known = operator_kinds()
    found = tuple(history.usual_sentinels(table))
    unknown = sorted({spec.kind for spec in found} - set(known))
    if unknown:
        raise SpecError(
            f"{table.title} was measured beside {', '.join(unknown)}, which no operator is "
            "registered for: name the file that registers it, --operators FILE"
        )
    return found
