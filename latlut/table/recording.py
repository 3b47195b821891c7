"""Writing a run into a table: op specs, passes, measurements, failures.

Measurements are facts and are only ever added; ``table.summary`` makes entries of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from latlut.machine.gpu_state import GpuState
from latlut.opspec import OpSpec
from latlut.stats.sampling import PairedSampling, Sampling
from latlut.table.killed import record_killed
from latlut.table.samples import pack_samples
from latlut.table.table import LatencyTable
from latlut.table.writing import insert, replace, set_fact, update
from latlut.timestamps import now_text
from latlut.version import __version__


@dataclass(frozen=True)
class SpecFacts:
    """What is known of an op spec before timing it; None where it was not computed."""

    macs: int | None = None
    params: int | None = None
    moved_bytes: int | None = None


@dataclass(frozen=True)
class Measurement:
    """One op spec timed in one pass, in the group ``group`` of that pass, on build ``build``.

    ``cpu_share`` is the share of the CPU that the process got meanwhile; None on a GPU.
    ``host_share`` is what the host took to enqueue a run over what the run took, ``launch`` how
    runs were launched; both None on a CPU.
    """

    spec: OpSpec
    sampling: Sampling
    group: int
    requeues: int = 0
    parity: float | None = None
    build: int = 0
    cpu_share: float | None = None
    host_share: float | None = None
    launch: str | None = None


#: Columns that are attributes of the same name.
_SPEC_COLUMNS = ("key", "kind", "in_channels", "out_channels", "stride", "batch")
_STATE_COLUMNS = ("sm_mhz", "memory_mhz", "temperature_c", "power_w", "power_limit_w",
                  "performance_state", "is_persistent")  # fmt: skip


def add_op_specs(table: LatencyTable, specs: Iterable[OpSpec]) -> dict[str, int]:
    """Make sure that op specs have rows; key -> row id for all of the given ones."""
    specs = list(specs)
    with table.writing() as db:
        ids = dict(db.execute("SELECT key, id FROM op_specs").fetchall())
        for spec in specs:
            if spec.key not in ids:
                own = {name: getattr(spec, name) for name in _SPEC_COLUMNS}
                _, height, width = spec.inputs[-1]
                own |= {"height": height, "width": width, "options": json.dumps(dict(spec.options))}
                ids[spec.key] = insert(db, "op_specs", **own)
    return {spec.key: ids[spec.key] for spec in specs}


def add_facts(table: LatencyTable, facts: Mapping[int, SpecFacts]) -> None:
    """Store what is known of op specs, by row id; what is None leaves what is there."""
    with table.writing() as db:
        for spec_id, known in facts.items():
            db.execute(
                "UPDATE op_specs SET macs = coalesce(?, macs), params = coalesce(?, params),"
                " moved_bytes = coalesce(?, moved_bytes) WHERE id = ?",
                [known.macs, known.params, known.moved_bytes, spec_id],
            )


def keep_own_modules(table: LatencyTable, names: Iterable[str]) -> None:
    """Remember what ``--operators`` named, beside what earlier runs were given."""
    known = list(dict.fromkeys([*table.own_modules, *names]))
    if known != list(table.own_modules):
        with table.writing() as db:
            set_fact(db, "own_modules", json.dumps(known))


def start_run(
    table: LatencyTable,
    kind: str,
    *,
    settings: Mapping[str, object],
    environment: Mapping[str, object],
    plan: str | None = None,
    plan_hash: str | None = None,
    space: Mapping[str, object] | None = None,
) -> int:
    """Record that a run began; its id. Runs whose process is gone are recorded as ``killed``.

    A run's process is the one of its environment, or that of ``settings["driver"]`` where
    another one than the measuring process writes the table.
    """
    with table.writing() as db:
        record_killed(db)
        return insert(
            db,
            "runs",
            kind=kind,
            started_at=now_text(),
            status="running",
            plan=plan,
            plan_hash=plan_hash,
            space=json.dumps(space) if space else None,
            settings=json.dumps(dict(settings)),
            environment=json.dumps(dict(environment)),
            latlut_version=__version__,
        )


def end_run(
    table: LatencyTable,
    run_id: int,
    status: str,
    *,
    seconds: Mapping[str, float] | None = None,
    environment: Mapping[str, object] | None = None,
) -> None:
    """Record how a run ended: ``done``, ``stopped``, ``out of budget``, ``failed``, ``imported``.

    ``seconds`` by what they went into; ``environment`` as it is now (clocks, temperature, load).
    """
    with table.writing() as db:
        update(
            db,
            "runs",
            run_id,
            ended_at=now_text(),
            status=status,
            seconds=json.dumps(dict(seconds or {})),
            environment_end=json.dumps(dict(environment)) if environment else None,
        )


def start_pass(table: LatencyTable, run_id: int, pass_index: int, device: str = "") -> int:
    """Record that a pass began, on the GPU with the UUID ``device`` if it is one; its id."""
    with table.writing() as db:
        return insert(
            db, "passes", run_id=run_id, pass_index=pass_index, started_at=now_text(), device=device
        )


def quarantine(table: LatencyTable, pass_ids: Iterable[int], reason: str) -> None:
    """Keep what passes measured out of the entries; ``summarise`` and later sweeps leave it out."""
    with table.writing() as db:
        for pass_id in pass_ids:
            update(db, "passes", pass_id, quarantine=reason)


def add_measurements(
    table: LatencyTable,
    pass_id: int,
    spec_ids: Mapping[str, int],
    measurements: Sequence[Measurement],
    sentinels: Sequence[tuple[OpSpec, int, float]] = (),
) -> None:
    """Store what was measured, and sentinel readings (spec, group, milliseconds), at once.

    Of a pair the reading and its interval are the difference's; quantiles and samples are those
    with the operator, and what was read without it is stored beside them.

    Raises:
        TableError: a latency that is not positive, in a table of whole latencies.
    """
    with table.writing() as db:
        for item in measurements:
            spec_id = spec_ids[item.spec.key]
            replace(
                db,
                "measurements",
                op_spec_id=spec_id,
                pass_id=pass_id,
                group_index=item.group,
                at=now_text(),
                requeues=item.requeues,
                parity=item.parity,
                build_index=item.build,
                cpu_share=item.cpu_share,
                host_share=item.host_share,
                launch=item.launch,
                **_sampled(item.sampling),
            )
            db.execute("DELETE FROM failures WHERE op_spec_id = ?", [spec_id])
        for spec, number, reading_ms in sentinels:
            ids = {"pass_id": pass_id, "op_spec_id": spec_ids[spec.key], "group_index": number}
            insert(db, "sentinel_readings", **ids, at=now_text(), reading_ms=reading_ms)


def _sampled(sampling: Sampling) -> dict[str, object]:
    """The columns of a measurement that say what was sampled."""
    samples_ms = sampling.samples_ns / 1e6
    p10, median, p90 = np.quantile(samples_ms, [0.1, 0.5, 0.9])
    found: dict[str, object] = {
        "n": len(samples_ms),
        "reading_ms": sampling.interval_ms.value,
        "min_ms": float(samples_ms.min()),
        "p10_ms": float(p10),
        "median_ms": float(median),
        "p90_ms": float(p90),
        "max_ms": float(samples_ms.max()),
        "ci_low_ms": sampling.interval_ms.low,
        "ci_high_ms": sampling.interval_ms.high,
        "warmup_runs": sampling.warmup_runs,
        "is_steady": sampling.is_steady,
        "samples": pack_samples(sampling.samples_ns),
    }
    if isinstance(sampling, PairedSampling):
        found |= {
            "with_ms": sampling.with_ms,
            "without_ms": sampling.without_ms,
            "without_samples": pack_samples(sampling.without_ns),
            "turn_sizes": json.dumps(list(sampling.turn_sizes)),
        }
    return found


def add_gpu_state(
    table: LatencyTable,
    run_id: int,
    phase: str,
    state: GpuState,
    pass_id: int | None = None,
    group: int | None = None,
) -> None:
    """Store a GPU's state ``before`` or ``after`` a run, or beside a ``group`` of a pass."""
    lists = {name: getattr(state, name) for name in ("throttle_reasons", "other_processes")}
    with table.writing() as db:
        insert(
            db,
            "gpu_states",
            run_id=run_id,
            pass_id=pass_id,
            group_index=group,
            phase=phase,
            at=now_text(),
            device=state.uuid,
            is_disturbed=bool(state.disturbances),
            **{name: getattr(state, name) for name in _STATE_COLUMNS},
            **{name: None if v is None else json.dumps(v) for name, v in lists.items()},
        )


def add_readings(table: LatencyTable, pass_id: int, readings_ms: Mapping[int, float]) -> None:
    """Store bare readings by op spec id, from a source that kept no samples."""
    with table.writing() as db:
        for spec_id, ms in readings_ms.items():
            values = {"op_spec_id": spec_id, "pass_id": pass_id, "n": 1, "reading_ms": ms}
            insert(db, "measurements", **values, at=now_text())


def add_failure(table: LatencyTable, run_id: int, spec_id: int, message: str) -> None:
    """Record that an op spec could not be measured; never as a number."""
    with table.writing() as db:
        replace(db, "failures", op_spec_id=spec_id, run_id=run_id, at=now_text(), message=message)
