"""What a plan holds before anything is measured: op specs and work by kind, pieces of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from latlut.errors import LatlutError
from latlut.operators.building import cost
from latlut.operators.onnx_cutting import CutFile
from latlut.operators.subgraph_store import known, shown
from latlut.opspec import OpSpec


@dataclass(frozen=True)
class PlannedSpec:
    """One op spec of a plan."""

    spec: OpSpec
    label: str
    """For people: what a piece of a file does; the key of an operator."""
    times: int
    """How often the files execute it; 1 in a plan without files."""
    macs: int | None
    """Multiply-accumulates of one inference; None where they cannot be counted."""


@dataclass(frozen=True)
class KindSummary:
    """All op specs of a kind; work that cannot be counted is left out and told by ``uncounted``."""

    kind: str
    op_specs: int
    macs: int
    largest_macs: int
    uncounted: int


def planned_specs(specs: Sequence[OpSpec], files: Sequence[CutFile] = ()) -> list[PlannedSpec]:
    """The op specs with what they compute, in their order.

    Args:
        specs: of a plan, without repetition.
        files: that it was cut from.
    """
    times = Counter(spec for file in files for spec in file.op_specs())
    return [
        PlannedSpec(spec, shown(spec), times[spec] if files else 1, _macs(spec)) for spec in specs
    ]


def by_kind(planned: Sequence[PlannedSpec]) -> list[KindSummary]:
    """Op specs and work by kind, the kind with the most work first."""
    kinds: dict[str, list[PlannedSpec]] = {}
    for item in planned:
        kinds.setdefault(item.spec.kind, []).append(item)
    found = []
    for kind, items in kinds.items():
        counted = [item.macs for item in items if item.macs is not None]
        found.append(
            KindSummary(
                kind, len(items), sum(counted), max(counted, default=0), len(items) - len(counted)
            )
        )
    return sorted(found, key=lambda item: (-item.macs, item.kind))


def _macs(spec: OpSpec) -> int | None:
    piece = known(spec)
    if piece is not None:
        return piece.macs
    try:
        return cost(spec).macs
    except LatlutError:  # a sweep reports what cannot be built
        return None
