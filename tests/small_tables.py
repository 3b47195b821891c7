"""Tables made without an engine: every op spec of a small space, with invented latencies."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from latlut.opspec import OpSpec
from latlut.spaces import FasterSegSpace
from latlut.table import recording
from latlut.table.identity import Identity
from latlut.table.table import LatencyTable
from latlut.timestamps import now_text

INPUT_SIZE = (64, 128)


def invented_ms(spec: OpSpec) -> float:
    """Another latency for every op spec, always the same; of no shape in particular."""
    return random.Random(spec.key).uniform(0.1, 2.0)


def plausible_ms(spec: OpSpec) -> float:
    """A latency that grows with what the op spec reads and writes, times that of its kind."""
    factor = {"skip": 0.3, "conv": 1.0, "conv_2x": 2.0, "zoomed_conv": 0.5}.get(spec.kind, 1.0)
    channels, height, width = spec.output
    return 1e-2 + 1e-6 * factor * spec.in_channels * channels * height * width / 100


def make_table(
    path: Path,
    specs: Iterable[OpSpec],
    latency_ms: Callable[[OpSpec], float] = invented_ms,
    own_error: float | None = 0.01,
    shared_error: float = 0.0,
    space: FasterSegSpace | None = None,
    input_size: tuple[int, int] = INPUT_SIZE,
    identity: Identity | None = None,
) -> LatencyTable:
    """A table with an entry for each of the specs; of a run that swept ``space`` if given."""
    specs = list(dict.fromkeys(specs))
    table = LatencyTable.create(path, identity or Identity("cpu", "test", "none", "0"))
    ids = recording.add_op_specs(table, specs)
    with table.writing() as db:
        for spec in specs:
            ms = latency_ms(spec)
            bounds = (None, None) if own_error is None else (ms - own_error, ms + own_error)
            db.execute(
                "INSERT INTO entries (op_spec_id, latency_ms, ci_low_ms, ci_high_ms, own_error,"
                " passes, n, updated_at) VALUES (?,?,?,?,?,5,100,?)",
                [ids[spec.key], ms, *bounds, own_error, now_text()],
            )
        db.execute("INSERT OR REPLACE INTO facts VALUES ('shared_error', ?)", [repr(shared_error)])
    if space is not None:
        values = {**space.to_dict(), "input_size": list(input_size), "batch": [1]}
        recording.start_run(table, "profile", settings={}, environment={}, space=values)
    return table


def space_table(
    path: Path,
    space: FasterSegSpace,
    latency_ms: Callable[[OpSpec], float] = invented_ms,
    own_error: float | None = 0.01,
    shared_error: float = 0.0,
) -> LatencyTable:
    """A table of every op spec of a space, which knows that space."""
    specs = space.op_specs(INPUT_SIZE)
    return make_table(path, specs, latency_ms, own_error, shared_error, space)


def ablation_table(path: Path, space: FasterSegSpace) -> Path:
    """A table file of a space, and of what it needs besides with one branch."""
    one_branch = replace(space, branches=1)
    specs = [*space.op_specs(INPUT_SIZE), *one_branch.op_specs(INPUT_SIZE)]
    make_table(path, specs, plausible_ms, space=space).close()
    return path


@contextmanager
def table_shelf(folder: Path) -> Iterator[Callable[..., LatencyTable]]:
    """A function (space, latency_ms) -> table that makes each once; all are closed at the end."""
    made: dict[tuple[object, ...], LatencyTable] = {}

    def table_of(
        space: FasterSegSpace, latency_ms: Callable[[OpSpec], float] = invented_ms
    ) -> LatencyTable:
        key = (space, latency_ms)
        if key not in made:
            made[key] = space_table(folder / f"{len(made)}.db", space, latency_ms)
        return made[key]

    try:
        yield table_of
    finally:
        for table in made.values():
            table.close()
