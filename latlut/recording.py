"""Writing a run into a table: op specs, passes, measurements, and the entries they make.

Measurements are facts and are only ever added; entries are their summary and can be computed
again from them at any time (``summarise``).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from latlut import __version__
from latlut.opspec import OpSpec
from latlut.stats import (
    CONFIDENCE,
    STATISTICS,
    combine_passes,
    quantile_interval,
    shared_half_width,
)
from latlut.table import LatencyTable, now_text
from latlut.timing import Sampling

#: An interval wider than this is worth a warning, as a relative half-width.
WIDE_INTERVAL = 0.10
#: Measured faster than the roofline by this factor: a measurement error, not a clever kernel.
ROOFLINE_SLACK = 4.0


@dataclass(frozen=True)
class SpecFacts:
    """What is known of an op spec before timing it; None where it was not computed."""

    macs: int | None = None
    params: int | None = None
    moved_bytes: int | None = None


@dataclass(frozen=True)
class Measurement:
    """One op spec timed in one pass, in the group ``group`` of that pass."""

    spec: OpSpec
    sampling: Sampling
    group: int
    requeues: int = 0
    parity: float | None = None


@dataclass(frozen=True)
class Roofline:
    """Peak figures of the target: FLOP/s, and bytes/s of memory and of the last-level cache."""

    flops_per_s: float | None = None
    memory_bytes_per_s: float | None = None
    cache_bytes_per_s: float | None = None

    def least_ms(self, macs: int | None, moved_bytes: int | None) -> float | None:
        """The least latency that compute and memory allow, None where neither is known."""
        bounds = []
        if macs and self.flops_per_s:
            bounds.append(2e3 * macs / self.flops_per_s)
        if moved_bytes and self.memory_bytes_per_s:
            bounds.append(1e3 * moved_bytes / self.memory_bytes_per_s)
        return max(bounds) if bounds else None

    def is_impossible(self, ms: float, macs: int | None, moved_bytes: int | None) -> bool:
        """Beyond 4x the compute peak or the last-level cache's bandwidth."""
        compute = macs and self.flops_per_s and ms * ROOFLINE_SLACK < 2e3 * macs / self.flops_per_s
        cache = (
            moved_bytes
            and self.cache_bytes_per_s
            and ms < 1e3 * moved_bytes / self.cache_bytes_per_s
        )
        return bool(compute or cache)


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
    """Record that a run began; its id."""
    with table.writing() as db:
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


def start_pass(table: LatencyTable, run_id: int, pass_index: int) -> int:
    """Record that a pass began; its id."""
    with table.writing() as db:
        cursor = db.execute(
            "INSERT INTO passes (run_id, pass_index, started_at) VALUES (?,?,?)",
            [run_id, pass_index, now_text()],
        )
        return int(cursor.lastrowid or 0)


def add_measurements(
    table: LatencyTable,
    pass_id: int,
    spec_ids: Mapping[str, int],
    measurements: Sequence[Measurement],
    sentinels: Sequence[tuple[OpSpec, int, float]] = (),
) -> None:
    """Store what was measured, and sentinel readings (spec, group, milliseconds), at once."""
    with table.writing() as db:
        for item in measurements:
            samples_ms = item.sampling.samples_ns / 1e6
            p10, median, p90 = np.quantile(samples_ms, [0.1, 0.5, 0.9])
            interval = item.sampling.interval_ms
            db.execute(
                "INSERT OR REPLACE INTO measurements (op_spec_id, pass_id, group_index, at, n,"
                " reading_ms, min_ms, p10_ms, median_ms, p90_ms, max_ms, ci_low_ms, ci_high_ms,"
                " warmup_runs, is_steady, requeues, parity, samples)"
                " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
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
                ],
            )
            db.execute("DELETE FROM failures WHERE op_spec_id = ?", [spec_ids[item.spec.key]])
        for spec, number, reading_ms in sentinels:
            db.execute(
                "INSERT INTO sentinel_readings (pass_id, op_spec_id, group_index, at, reading_ms)"
                " VALUES (?,?,?,?,?)",
                [pass_id, spec_ids[spec.key], number, now_text(), reading_ms],
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


def group_speeds(table: LatencyTable) -> dict[tuple[int, int], float]:
    """How slow the machine was in each group of each pass, from its sentinels; 1 is usual.

    A sentinel's usual reading is its median over the whole table; a group's speed is the
    geometric mean of its sentinels' readings over their usual ones. Keys: (pass id, group index).
    """
    rows = table.rows("SELECT pass_id, group_index, op_spec_id, reading_ms FROM sentinel_readings")
    by_spec: dict[int, list[float]] = {}
    for row in rows:
        by_spec.setdefault(row["op_spec_id"], []).append(row["reading_ms"])
    usual = {spec_id: float(np.median(readings)) for spec_id, readings in by_spec.items()}
    logs: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        ratio = row["reading_ms"] / usual[row["op_spec_id"]]
        logs.setdefault((row["pass_id"], row["group_index"]), []).append(np.log(ratio))
    return {group: float(np.exp(np.mean(values))) for group, values in logs.items()}


def _store_pass_speeds(table: LatencyTable, speeds: Mapping[tuple[int, int], float]) -> float:
    """Write each pass's mean speed; the relative error that all entries share, 0 if unknown."""
    by_pass: dict[int, list[float]] = {}
    for (pass_id, _), speed in speeds.items():
        by_pass.setdefault(pass_id, []).append(float(np.log(speed)))
    with table.writing() as db:
        for pass_id, logs in by_pass.items():
            error = float(np.std(logs, ddof=1)) / len(logs) ** 0.5 if len(logs) > 1 else None
            db.execute(
                "UPDATE passes SET speed_factor = ?, speed_error = ? WHERE id = ?",
                [float(np.exp(np.mean(logs))), error, pass_id],
            )
    longest = max((len(logs) for logs in by_pass.values()), default=0)
    # A pass that was cut short says little about the level.
    whole = [np.exp(np.mean(logs)) for logs in by_pass.values() if len(logs) > 0.2 * longest]
    shared = shared_half_width(np.array(whole))
    return shared if np.isfinite(shared) else 0.0


def set_roofline(table: LatencyTable, roofline: Roofline) -> None:
    """Keep the target's peak figures in the table, for every summary to come."""
    with table.writing() as db:
        db.execute(
            "INSERT OR REPLACE INTO facts (name, value) VALUES ('roofline', ?)",
            [json.dumps(asdict(roofline))],
        )


def summarise(table: LatencyTable) -> None:
    """Compute every measured entry again from its measurements.

    Readings are brought to the machine's usual speed by the sentinels of their group; the entry is
    the median over passes. Its interval comes from the spread between passes, is never narrower
    than the pooled samples' own, and contains the error that all entries share.
    """
    statistic = table.identity.statistic
    speeds = group_speeds(table)
    shared = _store_pass_speeds(table, speeds)
    columns = {r["id"]: i for i, r in enumerate(table.rows("SELECT id FROM passes ORDER BY id"))}
    rows = table.rows(
        "SELECT op_spec_id, pass_id, group_index, n, reading_ms, is_steady, requeues, samples,"
        " macs, moved_bytes FROM measurements JOIN op_specs ON op_specs.id = op_spec_id"
    )
    if not rows:
        return
    groups: dict[int, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["op_spec_id"], []).append(row)
    ids = sorted(groups)
    readings = np.full((len(ids), len(columns)), np.nan)
    beside = np.full((len(ids), len(columns)), np.nan)
    for line, spec_id in enumerate(ids):
        for row in groups[spec_id]:
            column = columns[row["pass_id"]]
            readings[line, column] = row["reading_ms"]
            beside[line, column] = speeds.get((row["pass_id"], row["group_index"]), np.nan)
    combined = combine_passes(readings, beside if speeds else None)
    roofline = Roofline(**json.loads(table.fact("roofline") or "{}"))
    with table.writing() as db:
        for line, spec_id in enumerate(ids):
            mine = groups[spec_id]
            value, between = float(combined.value[line]), float(combined.half_width[line])
            within = _within_half_width(mine, statistic)
            known = [width for width in (between, within) if np.isfinite(width)]
            own = max(known) if np.isfinite(between) else None  # one sitting is no interval
            total = None if own is None else float(np.hypot(own, shared))
            macs, moved = mine[0]["macs"], mine[0]["moved_bytes"]
            warnings = _warnings(mine, total, roofline.is_impossible(value, macs, moved))
            db.execute(
                "INSERT OR REPLACE INTO entries (op_spec_id, latency_ms, ci_low_ms, ci_high_ms,"
                " own_error, passes, n, roofline_ms, warnings, updated_at)"
                " VALUES (?,?,?,?,?,?,?,?,?,?)",
                [
                    spec_id,
                    value,
                    None if total is None else value * np.exp(-total),
                    None if total is None else value * np.exp(total),
                    own,
                    len(mine),
                    sum(row["n"] for row in mine),
                    roofline.least_ms(macs, moved),
                    "; ".join(warnings),
                    now_text(),
                ],
            )
        for name, fact in (("shared_error", shared), ("elasticity", combined.elasticity)):
            db.execute(
                "INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", [name, repr(fact)]
            )


def _within_half_width(rows: Sequence[Mapping], statistic: str) -> float:
    """Relative half-width that the samples of all passes together give, NaN if too few."""
    parts = [
        unpack_samples(row["samples"]) / (row["reading_ms"] * 1e6) for row in rows if row["samples"]
    ]
    if not parts:
        return float("nan")
    interval = quantile_interval(np.concatenate(parts), STATISTICS[statistic], CONFIDENCE)
    return interval.half_width


def _warnings(rows: Sequence[Mapping], total: float | None, is_impossible: bool) -> list[str]:
    found = []
    if is_impossible:
        found.append("faster than the target's peak figures allow")
    if total is None:
        found.append(f"interval unknown after {len(rows)} pass{'es' if len(rows) > 1 else ''}")
    elif total > WIDE_INTERVAL:
        found.append(f"interval of {100 * total:.1f}%")
    if sum(not row["is_steady"] for row in rows if row["is_steady"] is not None) * 2 > len(rows):
        found.append("warm-up did not settle")
    if any(row["requeues"] >= 2 for row in rows):
        found.append("machine disturbed while measuring")
    return found
