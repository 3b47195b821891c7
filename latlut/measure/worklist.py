"""What a table already holds of a sweep, and what is left to measure."""

from __future__ import annotations

import random
from dataclasses import dataclass

from latlut.measure.parts import Part
from latlut.measure.plans import Plan
from latlut.operators.registry import operator_kinds
from latlut.opspec import OpSpec
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
    table: LatencyTable, plan: Plan, part: Part, passes: int, rebuilds: int, seed: int
) -> Work:
    """What the table lacks of a part of the plan, each pass in a random order of its own.

    With several builds, pass p is there if build p modulo ``rebuilds`` was measured in it; with
    one, whichever build was.
    """
    rows = table.rows(
        "SELECT key, pass_index, build_index FROM measurements"
        " JOIN passes ON passes.id = pass_id JOIN op_specs ON op_specs.id = op_spec_id"
    )
    there: set[tuple[str, int, int]] = set()
    for row in rows:
        build = row["build_index"] if rebuilds > 1 else 0
        there.add((row["key"], row["pass_index"], build))
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
    """Those of earlier runs: what is added later is tied to the same usual speed."""
    rows = table.rows(
        "SELECT DISTINCT key FROM sentinel_readings"
        " JOIN op_specs ON op_specs.id = op_spec_id ORDER BY key"
    )
    known = operator_kinds()
    specs = [OpSpec.parse(row["key"]) for row in rows]
    return tuple(spec for spec in specs if spec.kind in known)


def known_parities(table: LatencyTable) -> dict[tuple[str, int], float]:
    """(key, build) -> difference from PyTorch, of those that were compared before."""
    rows = table.rows(
        "SELECT key, build_index, max(parity) AS parity FROM measurements"
        " JOIN op_specs ON op_specs.id = op_spec_id GROUP BY key, build_index"
    )
    return {
        (row["key"], row["build_index"]): row["parity"] for row in rows if row["parity"] is not None
    }
