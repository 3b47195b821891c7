"""From measurements to entries: what a table says, computed from what it has measured.

Entries are the summary of the measurements and can be computed again from them at any time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from sqlite_utils import Database

from latlut.stats.combining import CombinedReadings, combine_readings
from latlut.stats.devices import level_half_width
from latlut.stats.differences import combine_differences
from latlut.stats.entry_intervals import EntryError, error_of_difference, error_of_latency
from latlut.stats.machine_speed import (
    is_disturbed,
    is_host_bound,
    relative_speed,
    usual_readings,
)
from latlut.stats.passes import shared_half_width
from latlut.stats.quantiles import statistic_interval
from latlut.table.content import READ_BY_SUMMARY, refuse_wrong
from latlut.table.entry import DISTURBED
from latlut.table.history import devices_of_passes, sentinel_readings
from latlut.table.roofline import Roofline, bounds, clock_error_ms
from latlut.table.samples import unpack_samples
from latlut.table.table import LatencyTable
from latlut.table.writing import replace, set_fact, update
from latlut.timestamps import now_text
from latlut.version import __version__

#: An entry below this multiple of what an empty kernel takes is mostly the launch.
LAUNCH_FLOOR_SLACK = 2.0
#: An interval wider than this is worth a warning, as a relative half-width.
WIDE_INTERVAL = 0.10
#: Warnings that say what an entry is, or who else was there; not that it was disturbed.
NEAR_LAUNCH_FLOOR = "near the launch floor"
OTHER_PROCESSES = "other processes on the GPU"
HOST_BOUND = "limited by the host's launches"
NEAR_ZERO = "not distinguishable from zero"

#: The fact that says what the entries were computed from; see ``are_entries_current``.
SUMMARISED = "summarised"
_STATE = """
    SELECT (SELECT count(*) FROM measurements) AS measurements,
        (SELECT max(id) FROM measurements) AS measurement,
        (SELECT count(*) FROM sentinel_readings) AS readings,
        (SELECT max(id) FROM sentinel_readings) AS reading,
        (SELECT count(*) FROM passes WHERE quarantine IS NOT NULL) AS quarantined,
        (SELECT count(*) FROM gpu_states) AS states,
        (SELECT count(*) FROM op_specs WHERE macs IS NOT NULL) AS counted,
        (SELECT count(*) FROM entries) AS entries
"""

#: (pass id, group index) -> how slow the machine was beside that group.
_Speeds = dict[tuple[int, int], float]
Row = Mapping[str, Any]


def group_speeds(table: LatencyTable) -> _Speeds:
    """How slow the machine was in each group of each pass, from its sentinels; 1 is usual.

    Keys: (pass id, group index).
    """
    readings = sentinel_readings(table)
    usual_ms = usual_readings((item.key, item.reading_ms) for item in readings)
    beside: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for item in readings:
        pair = (item.reading_ms, usual_ms[item.key])
        beside.setdefault((item.pass_id, item.group), []).append(pair)
    return {group: relative_speed(pairs) for group, pairs in beside.items()}


def _store_pass_speeds(table: LatencyTable, db: Database, speeds: _Speeds) -> float:
    """Write each pass's mean speed; the relative error that all entries share, 0 if unknown."""
    by_pass: dict[int, list[float]] = {}
    for (pass_id, _), speed in speeds.items():
        by_pass.setdefault(pass_id, []).append(float(np.log(speed)))
    for pass_id, logs in by_pass.items():
        error = float(np.std(logs, ddof=1)) / len(logs) ** 0.5 if len(logs) > 1 else None
        mean = float(np.exp(np.mean(logs)))
        update(db, "passes", pass_id, speed_factor=mean, speed_error=error)
    longest = max((len(logs) for logs in by_pass.values()), default=0)
    # A pass that was cut short says little about the level.
    whole = {key: np.mean(logs) for key, logs in by_pass.items() if len(logs) > 0.2 * longest}
    levels = np.exp(list(whole.values()))
    place = devices_of_passes(table)
    devices = np.array([place[pass_id] for pass_id in whole], dtype=int)
    return float(np.nanmax([0.0, shared_half_width(levels), level_half_width(levels, devices)]))


def _group_troubles(table: LatencyTable) -> dict[tuple[int, int], list[str]]:
    """What the GPU's state beside a group is to be warned of. Keys: (pass id, group index)."""
    found = {}
    for row in table.rows(
        "SELECT pass_id, group_index, is_disturbed, other_processes FROM gpu_states"
        " WHERE phase = 'group'"
    ):
        others = json.loads(row["other_processes"] or "[]")
        signs = (("throttled", row["is_disturbed"]), (OTHER_PROCESSES, others))
        found[row["pass_id"], row["group_index"]] = [text for text, is_seen in signs if is_seen]
    return found


def _combined(
    table: LatencyTable, groups: Mapping[int, Sequence[Row]], speeds: _Speeds
) -> CombinedReadings:
    """The rows' values over passes and builds, one per op spec in the order of ``groups``."""
    device = devices_of_passes(table)
    passes = list(device)
    column = {pass_id: number for number, pass_id in enumerate(passes)}

    def matrix(value: Callable[[Row], float], empty: float = np.nan) -> np.ndarray:
        """(E, P): entries in rows, passes in columns; ``empty`` where there is nothing."""
        found = np.full((len(groups), len(passes)), empty)
        for line, rows in enumerate(groups.values()):
            for row in rows:
                found[line, column[row["pass_id"]]] = value(row)
        return found

    reading_ms = matrix(lambda row: row["reading_ms"])
    builds = matrix(lambda row: row["build_index"], 0)
    beside = None
    if speeds:
        beside = matrix(lambda row: speeds.get((row["pass_id"], row["group_index"]), np.nan))
    devices = np.tile(np.array([*device.values()], dtype=int), (len(groups), 1))
    if not table.identity.is_in_context:
        return combine_readings(reading_ms, builds, beside, devices)
    # Where nothing comes before an operator the reading is all of the graph with it.
    with_ms = matrix(lambda row: row["reading_ms"] if row["with_ms"] is None else row["with_ms"])
    without_ms = matrix(lambda row: row["without_ms"] or 0.0)
    return combine_differences(reading_ms, with_ms, without_ms, builds, beside, devices)


def are_entries_current(table: LatencyTable) -> bool:
    """Whether nothing that entries are computed from has changed since they were computed."""
    return table.fact(SUMMARISED) == _state(table)


def _state(table: LatencyTable) -> str:
    """What entries depend on, as numbers that change with it."""
    (row,) = table.rows(_STATE)
    facts = [table.fact(name) for name in ("roofline", "launch_floor_ms", "clock_error_ms")]
    return json.dumps([__version__, *row.values(), *facts])


def summarise(table: LatencyTable) -> None:
    """Compute every measured entry again from its measurements.

    Readings are brought to the machine's usual speed by the sentinels of their group; the entry is
    the median over passes, with several builds the mean of their medians. Its interval comes from
    the spread between passes, builds and devices, is never narrower than the pooled samples' own,
    and contains the error that all entries share. Quarantined passes are left out.

    Differences are combined as such (``stats.differences``); their intervals are in milliseconds.
    All of it is one transaction.

    Raises:
        TableError: a row that cannot be, or samples that cannot be read; names it.
    """
    with table.writing() as db:
        refuse_wrong(db.conn, table.path, READ_BY_SUMMARY)
        _summarise(table, db)
        set_fact(db, SUMMARISED, _state(table))


def _summarise(table: LatencyTable, db: Database) -> None:
    statistic = table.identity.statistic
    speeds = group_speeds(table)
    shared = _store_pass_speeds(table, db, speeds)
    rows = table.rows(
        "SELECT op_spec_id, pass_id, group_index, n, reading_ms, is_steady, requeues, samples,"
        " build_index, macs, moved_bytes, with_ms, without_ms, ci_low_ms, ci_high_ms, cpu_share,"
        " host_share, launch"
        " FROM measurements JOIN op_specs ON op_specs.id = op_spec_id"
        " JOIN passes ON passes.id = pass_id WHERE quarantine IS NULL"
    )
    # Of what only quarantined passes measured nothing is left.
    db.execute(
        "DELETE FROM entries WHERE op_spec_id IN (SELECT op_spec_id FROM measurements JOIN passes"
        " ON passes.id = pass_id GROUP BY op_spec_id HAVING sum(quarantine IS NULL) = 0)"
    )
    if not rows:
        return
    groups: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["op_spec_id"]):
        groups.setdefault(row["op_spec_id"], []).append(row)
    combined = _combined(table, groups, speeds)
    roofline, floor_ms = bounds(table)
    clock_ms = clock_error_ms(table)
    troubles = _group_troubles(table)
    for line, (spec_id, mine) in enumerate(groups.items()):
        macs, moved = mine[0]["macs"], mine[0]["moved_bytes"]
        value, spread = float(combined.value[line]), float(combined.half_width[line])
        build = float(combined.build_half_width[line])
        device = float(combined.device_half_width[line])
        if table.identity.is_in_context:
            within = _within_half_width_ms(mine)
            error = error_of_difference(value, spread, within, build, shared, device)
            warnings = _warnings(mine, error, _is_impossible_at_most(roofline, error, macs))
        else:
            within = _within_half_width(mine, statistic) + clock_ms / value
            error = error_of_latency(value, spread, within, build, shared, device)
            warnings = _warnings(mine, error, roofline.is_impossible(value, macs, moved))
            if value < LAUNCH_FLOOR_SLACK * floor_ms:
                warnings.append(NEAR_LAUNCH_FLOOR)
        host_share = _median_or_none([row["host_share"] for row in mine])
        if is_host_bound(host_share):
            warnings.append(HOST_BOUND)
        seen = [troubles.get((row["pass_id"], row["group_index"]), []) for row in mine]
        warnings += dict.fromkeys(chain(*seen))
        replace(
            db,
            "entries",
            op_spec_id=spec_id,
            latency_ms=value,
            ci_low_ms=error.low_ms,
            ci_high_ms=error.high_ms,
            own_error=error.own,
            own_error_ms=error.own_ms,
            passes=len(mine),
            n=sum(row["n"] for row in mine),
            builds=int(combined.builds[line]),
            build_error=error.build,
            build_sd=float(combined.build_sd[line]),
            pass_sd=float(combined.pass_sd[line]),
            devices=int(combined.devices[line]),
            device_error=error.device,
            device_sd=float(combined.device_sd[line]),
            roofline_ms=roofline.least_ms(macs, moved),
            host_share=host_share,
            cpu_share=_median_or_none([row["cpu_share"] for row in mine]),
            launch="; ".join(dict.fromkeys(row["launch"] for row in mine if row["launch"])) or None,
            warnings="; ".join(warnings),
            updated_at=now_text(),
        )
    set_fact(db, "shared_error", repr(shared))
    set_fact(db, "elasticity", repr(combined.elasticity))


def _median_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _is_impossible_at_most(roofline: Roofline, error: EntryError, macs: int | None) -> bool:
    """Whether even the upper end of a difference is beyond what the target can compute.

    What an operator moves says nothing here: in context it may stay in a cache, or in registers.
    """
    return error.high_ms is not None and roofline.is_impossible(error.high_ms, macs, None)


def _within_half_width_ms(rows: Sequence[Row]) -> float:
    """Half-width of the mean of the passes' own intervals, milliseconds; NaN where none has one."""
    halves = [
        (row["ci_high_ms"] - row["ci_low_ms"]) / 2
        for row in rows
        if row["ci_low_ms"] is not None and row["ci_high_ms"] is not None
    ]
    return float(np.linalg.norm(halves)) / len(halves) if halves else float("nan")


def _within_half_width(rows: Sequence[Row], statistic: str) -> float:
    """Relative half-width that the samples of all passes together give, NaN if too few."""
    parts = [
        unpack_samples(row["samples"]) / (row["reading_ms"] * 1e6) for row in rows if row["samples"]
    ]
    if not parts:
        return float("nan")
    return statistic_interval(np.concatenate(parts), statistic).half_width


def _warnings(rows: Sequence[Row], error: EntryError, is_impossible: bool) -> list[str]:
    found, total = [], error.total
    if is_impossible:
        found.append("faster than the target's peak figures allow")
    if total is None:
        found.append(f"interval unknown after {len(rows)} pass{'es' if len(rows) > 1 else ''}")
    elif error.is_near_zero:
        found.append(NEAR_ZERO)
    elif total > WIDE_INTERVAL:
        found.append(f"interval ±{100 * total:.1f}%")
    if sum(not row["is_steady"] for row in rows if row["is_steady"] is not None) * 2 > len(rows):
        found.append("warm-up did not settle")
    shares = [row["cpu_share"] for row in rows if row["cpu_share"] is not None]
    busy = list(filter(is_disturbed, shares))
    # The median over passes stands for the undisturbed ones while they are more.
    if any(row["requeues"] >= 2 for row in rows) or 2 * len(busy) > len(shares):
        found.append(DISTURBED)
    return found
