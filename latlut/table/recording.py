"""Writing a run into a table: op specs, passes, measurements, failures.

Measurements are facts and are only ever added; ``table.summary`` makes entries of them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from latlut.machine.gpu_state import GpuState
from latlut.machine.provenance import is_process_gone
from latlut.opspec import OpSpec
from latlut.stats.sampling import PairedSampling, Sampling
from latlut.table.table import LatencyTable
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
    """One op spec timed in one pass, in the group ``group`` of that pass, on build ``build``."""

    spec: OpSpec
    sampling: Sampling
    group: int
    requeues: int = 0
    parity: float | None = None
    build: int = 0


def pack_samples(samples_ns: np.ndarray) -> bytes:
    """(n,) nanoseconds as compressed little-endian int64."""
    return zlib.compress(np.ascontiguousarray(samples_ns, dtype="<i8").tobytes(), 6)


def unpack_samples(blob: bytes) -> np.ndarray:
    """(n,) int64 nanoseconds of what ``pack_samples`` made."""
    return np.frombuffer(zlib.decompress(blob), dtype="<i8")


def add_op_specs(
    table: LatencyTable, specs: Iterable[OpSpec], facts: Mapping[OpSpec, SpecFacts] | None = None
) -> dict[str, int]:
    """Make sure that op specs have rows; key -> row id for all of the given ones."""
    specs = list(specs)
    known = facts or {}
    with table.writing() as db:
        for spec in specs:
            fact = known.get(spec, SpecFacts())
            db.execute(
                "INSERT INTO op_specs (key, kind, in_channels, out_channels, stride, height, width,"
                " batch, options, macs, params, moved_bytes) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
                " ON CONFLICT (key) DO UPDATE SET macs = coalesce(excluded.macs, macs),"
                " params = coalesce(excluded.params, params),"
                " moved_bytes = coalesce(excluded.moved_bytes, moved_bytes)",
                [
                    spec.key,
                    spec.kind,
                    spec.in_channels,
                    spec.out_channels,
                    spec.stride,
                    spec.inputs[-1][1],
                    spec.inputs[-1][2],
                    spec.batch,
                    json.dumps(dict(spec.options)),
                    fact.macs,
                    fact.params,
                    fact.moved_bytes,
                ],
            )
    ids = {row["key"]: row["id"] for row in table.rows("SELECT key, id FROM op_specs")}
    return {spec.key: ids[spec.key] for spec in specs}


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
    """Record that a run began; its id. Runs whose process is gone are recorded as ``killed``."""
    with table.writing() as db:
        running = "SELECT id, environment FROM runs WHERE status = 'running'"
        for row in list(db.query(running)):
            if is_process_gone(json.loads(row["environment"])):
                db.execute("UPDATE runs SET status = 'killed' WHERE id = ?", [row["id"]])
        cursor = db.execute(
            "INSERT INTO runs (kind, started_at, status, plan, plan_hash, space, settings,"
            " environment, latlut_version) VALUES (?,?,?,?,?,?,?,?,?)",
            [
                kind,
                now_text(),
                "running",
                plan,
                plan_hash,
                json.dumps(space) if space else None,
                json.dumps(dict(settings)),
                json.dumps(dict(environment)),
                __version__,
            ],
        )
        return int(cursor.lastrowid or 0)


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
        db.execute(
            "UPDATE runs SET ended_at = ?, status = ?, seconds = ?, environment_end = ?"
            " WHERE id = ?",
            [
                now_text(),
                status,
                json.dumps(dict(seconds or {})),
                json.dumps(dict(environment)) if environment else None,
                run_id,
            ],
        )


def start_pass(table: LatencyTable, run_id: int, pass_index: int, device: str = "") -> int:
    """Record that a pass began, on the GPU with the UUID ``device`` if it is one; its id."""
    with table.writing() as db:
        cursor = db.execute(
            "INSERT INTO passes (run_id, pass_index, started_at, device) VALUES (?,?,?,?)",
            [run_id, pass_index, now_text(), device],
        )
        return int(cursor.lastrowid or 0)


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
            pair = item.sampling if isinstance(item.sampling, PairedSampling) else None
            samples_ms = item.sampling.samples_ns / 1e6
            p10, median, p90 = np.quantile(samples_ms, [0.1, 0.5, 0.9])
            interval = item.sampling.interval_ms
            db.execute(
                "INSERT OR REPLACE INTO measurements (op_spec_id, pass_id, group_index, at, n,"
                " reading_ms, min_ms, p10_ms, median_ms, p90_ms, max_ms, ci_low_ms, ci_high_ms,"
                " warmup_runs, is_steady, requeues, parity, samples, build_index, with_ms,"
                " without_ms, without_samples, turn_sizes)"
                " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                [
                    spec_ids[item.spec.key],
                    pass_id,
                    item.group,
                    now_text(),
                    len(samples_ms),
                    interval.value,
                    float(samples_ms.min()),
                    float(p10),
                    float(median),
                    float(p90),
                    float(samples_ms.max()),
                    _or_none(interval.low),
                    _or_none(interval.high),
                    item.sampling.warmup_runs,
                    item.sampling.is_steady,
                    item.requeues,
                    item.parity,
                    pack_samples(item.sampling.samples_ns),
                    item.build,
                    pair.with_ms if pair else None,
                    pair.without_ms if pair else None,
                    pack_samples(pair.without_ns) if pair else None,
                    json.dumps(list(pair.turn_sizes)) if pair else None,
                ],
            )
            db.execute("DELETE FROM failures WHERE op_spec_id = ?", [spec_ids[item.spec.key]])
        for spec, number, reading_ms in sentinels:
            db.execute(
                "INSERT INTO sentinel_readings (pass_id, op_spec_id, group_index, at, reading_ms)"
                " VALUES (?,?,?,?,?)",
                [pass_id, spec_ids[spec.key], number, now_text(), reading_ms],
            )


def add_gpu_state(
    table: LatencyTable,
    run_id: int,
    phase: str,
    state: GpuState,
    pass_id: int | None = None,
    group: int | None = None,
) -> None:
    """Store a GPU's state ``before`` or ``after`` a run, or beside a ``group`` of a pass."""

    def listed(items: Sequence[object] | None) -> str | None:
        return None if items is None else json.dumps(list(items))

    with table.writing() as db:
        db.execute(
            "INSERT INTO gpu_states (run_id, pass_id, group_index, phase, at, device, sm_mhz,"
            " memory_mhz, temperature_c, power_w, power_limit_w, throttle_reasons,"
            " other_processes, performance_state, is_persistent, is_disturbed)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            [
                run_id,
                pass_id,
                group,
                phase,
                now_text(),
                state.uuid,
                state.sm_mhz,
                state.memory_mhz,
                state.temperature_c,
                state.power_w,
                state.power_limit_w,
                listed(state.throttle_reasons),
                listed(state.other_processes),
                state.performance_state,
                state.is_persistent,
                bool(state.disturbances),
            ],
        )


def add_readings(table: LatencyTable, pass_id: int, readings_ms: Mapping[int, float]) -> None:
    """Store bare readings by op spec id, from a source that kept no samples."""
    with table.writing() as db:
        db.conn.executemany(
            "INSERT INTO measurements (op_spec_id, pass_id, at, n, reading_ms) VALUES (?,?,?,1,?)",
            [(spec_id, pass_id, now_text(), ms) for spec_id, ms in readings_ms.items()],
        )


def add_failure(table: LatencyTable, run_id: int, spec_id: int, message: str) -> None:
    """Record that an op spec could not be measured; never as a number."""
    with table.writing() as db:
        db.execute(
            "INSERT OR REPLACE INTO failures (op_spec_id, run_id, at, message) VALUES (?,?,?,?)",
            [spec_id, run_id, now_text(), message],
        )


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
