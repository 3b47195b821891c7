"""What a sweep would measure, and about how long it would take: ``profile --dry-run``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latlut.engines.base import Engine
from latlut.measure.groups import GroupTimer
from latlut.measure.held_device import measuring_on
from latlut.measure.parts import Part
from latlut.measure.plans import Plan
from latlut.measure.stopwatch import Stopwatch
from latlut.measure.sweep_settings import SweepSettings
from latlut.measure.waiting import Say
from latlut.measure.worklist import work_of
from latlut.operators.graph_cache import GraphCache
from latlut.opspec import OpSpec
from latlut.table.identity import Identity
from latlut.table.subgraphs import learn_graphs
from latlut.table.table import LatencyTable

#: Op specs that are tried, spread over the plan's keys.
TRIED = 8


@dataclass(frozen=True)
class Preview:
    """What is left of a sweep."""

    op_specs: int
    """Of the plan."""
    by_kind: Mapping[str, int]
    """Operator -> how many of its op specs lack a reading."""
    missing: tuple[str, ...]
    """Keys of those op specs."""
    readings: int
    """That would be taken, over all passes."""
    reused: int
    """That are in the table already."""
    seconds: float | None
    """About how long that takes; None where none of the tried op specs can be measured."""
    tried: int
    """How many op specs were tried to tell."""


def preview(
    plan: Plan,
    engine: Engine,
    identity: Identity,
    path: Path,
    settings: SweepSettings,
    part: Part | None = None,
    waiting: Say | None = None,
) -> Preview:
    """What a sweep of these arguments would do. Nothing is written.

    A few op specs are tried, twice each: a first pass also exports and compares.

    Raises:
        IdentityError: the table is of another identity.
        DeviceBusyError: another process measures on the device.
    """
    with _existing(path, identity) as table:
        if table is not None:
            learn_graphs(table, plan.specs)
        work = work_of(
            table, plan, part or Part(0, 1), settings.passes, settings.rebuilds, settings.seed
        )
    missing = {spec: None for specs in work.missing.values() for spec in specs}
    seconds, tried = None, 0
    if missing:
        with measuring_on(engine, waiting=waiting):
            first_s, later_s, tried = _seconds_per_reading(
                list(missing), engine, settings, identity.mode
            )
        if tried:
            seconds = len(missing) * first_s + (work.total - len(missing)) * later_s
    else:
        seconds = 0.0
    return Preview(
        op_specs=len(plan.specs),
        by_kind=dict(sorted(Counter(spec.kind for spec in missing).items())),
        missing=tuple(spec.key for spec in missing),
        readings=work.total,
        reused=work.reused,
        seconds=seconds,
        tried=tried,
    )


@contextmanager
def _existing(path: Path, identity: Identity) -> Iterator[LatencyTable | None]:
    if not path.exists() or not path.stat().st_size:
        yield None
        return
    with LatencyTable.open(path) as table:
        table.check_identity(identity)
        yield table


def _seconds_per_reading(
    specs: list[OpSpec], engine: Engine, settings: SweepSettings, mode: str
) -> tuple[float, float, int]:
    """Wall seconds of an op spec's first reading and of a later one, the sentinels' share included,
    as means over those tried; and how many of these could be measured."""
    places = np.linspace(0, len(specs) - 1, min(TRIED, len(specs))).round().astype(int)
    ordered = sorted(specs, key=lambda spec: spec.key)
    failed: dict[OpSpec, Exception] = {}
    taken_s, count = [0.0, 0.0], 0
    timer = GroupTimer(
        engine, settings.timing, GraphCache(), Stopwatch(), {}, failed.__setitem__, mode=mode
    )
    for spec in (ordered[place] for place in places):
        for turn in range(2):
            started = time.monotonic()
            found = timer.time([spec], 0, ()).found
            if not found:
                break
            taken_s[turn] += time.monotonic() - started
        else:
            count += 1
    if not count:
        return 0.0, 0.0, 0
    beside = 1 + settings.sentinels / settings.group
    return beside * taken_s[0] / count, beside * taken_s[1] / count, count
