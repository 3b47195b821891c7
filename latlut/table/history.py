"""What a table has on record besides its entries: runs, measurements, sentinel readings, failures.

Validations and calibrations have files of their own (``table.validations``,
``table.calibrations``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from latlut.opspec import OpSpec
from latlut.stats.machine_speed import usual_readings
from latlut.table.table import LatencyTable

_OF_SPECS = "JOIN op_specs ON op_specs.id = op_spec_id"


@dataclass(frozen=True)
class SentinelReading:
    """What a sentinel took beside a group of a pass."""

    key: str
    pass_id: int
    group: int
    reading_ms: float


@dataclass(frozen=True)
class Quarantine:
    """What a slow device measured, which is kept out of the entries."""

    device: str
    """Its name: a GPU's UUID, or the host of a CPU."""
    reason: str
    """Why."""
    readings: int
    """How many measurements it has."""

    def __str__(self) -> str:
        return (
            f"{self.device} is in quarantine, its {self.readings} readings are in no entry: "
            f"{self.reason}"
        )


def quarantines(table: LatencyTable) -> list[Quarantine]:
    """What is kept out of the entries, by device and reason."""
    rows = table.rows(
        "SELECT device, quarantine, count(measurements.id) AS readings FROM passes"
        " LEFT JOIN measurements ON pass_id = passes.id WHERE quarantine IS NOT NULL"
        " GROUP BY device, quarantine ORDER BY min(passes.id)"
    )
    return [Quarantine(*row.values()) for row in rows]


def devices_of_passes(table: LatencyTable) -> dict[int, int]:
    """Id of each pass that is not in quarantine -> a number of its device, in the passes' order.

    Where a sweep was shared out and no device was recorded, as with shards on CPUs, it is the host.
    """
    rows = table.rows(
        "SELECT passes.id, CASE WHEN device <> '' OR json_extract(settings, '$.part[1]') IS NULL"
        " OR json_extract(settings, '$.part[1]') < 2 THEN device"
        " ELSE json_extract(environment, '$.host') END AS device"
        " FROM passes JOIN runs ON runs.id = run_id WHERE quarantine IS NULL ORDER BY passes.id"
    )
    numbers: dict[str | None, int] = {}
    return {row["id"]: numbers.setdefault(row["device"], len(numbers)) for row in rows}


def visits(table: LatencyTable) -> list[tuple[str, int, int]]:
    """Of each measurement the op spec's key, the index of its pass and the number of its build.

    Those in quarantine are none.
    """
    rows = table.rows(
        "SELECT key, pass_index, build_index FROM measurements"
        f" JOIN passes ON passes.id = pass_id {_OF_SPECS} WHERE quarantine IS NULL"
    )
    return [(row["key"], row["pass_index"], row["build_index"]) for row in rows]


def measured_keys(table: LatencyTable) -> set[str]:
    """Keys of the op specs that have measurements."""
    return {row["key"] for row in table.rows(f"SELECT DISTINCT key FROM measurements {_OF_SPECS}")}


def measurement_count(table: LatencyTable) -> int:
    """How many measurements there are."""
    return int(table.rows("SELECT count(*) AS n FROM measurements")[0]["n"])


def build_count(table: LatencyTable) -> int:
    """How many builds the passes take turns with; 1 where nothing was measured."""
    rows = table.rows("SELECT max(build_index) AS most FROM measurements")
    return 1 + (rows[0]["most"] or 0)


def parities(table: LatencyTable) -> dict[tuple[str, int], float]:
    """(key, build) -> difference from PyTorch, of those that were compared."""
    rows = table.rows(
        "SELECT key, build_index, max(parity) AS parity FROM measurements"
        f" {_OF_SPECS} WHERE parity IS NOT NULL GROUP BY key, build_index"
    )
    return {(row["key"], row["build_index"]): row["parity"] for row in rows}


def keys_of_known_cost(table: LatencyTable) -> set[str]:
    """Keys of the op specs whose multiply-adds are stored."""
    return {row["key"] for row in table.rows("SELECT key FROM op_specs WHERE macs IS NOT NULL")}


def uncompared_runs(table: LatencyTable) -> list[int]:
    """Ids of the runs whose outputs were compared with nothing (``--unchecked``)."""
    sql = "SELECT id FROM runs WHERE json_extract(settings, '$.is_compared') = 0 ORDER BY id"
    return [row["id"] for row in table.rows(sql)]


def failures(table: LatencyTable) -> dict[str, str]:
    """Key -> why the op spec could not be measured."""
    return {row["op_spec"]: row["message"] for row in table.rows("SELECT * FROM failed")}


def sentinel_readings(table: LatencyTable) -> list[SentinelReading]:
    """All that are not in quarantine, in the order of their taking."""
    rows = table.rows(
        f"SELECT key, pass_id, group_index, reading_ms FROM sentinel_readings {_OF_SPECS}"
        " JOIN passes ON passes.id = pass_id WHERE quarantine IS NULL"
        " ORDER BY sentinel_readings.id"
    )
    return [SentinelReading(*row.values()) for row in rows]


def usual_sentinels(table: LatencyTable) -> dict[OpSpec, float]:
    """The op specs that served as sentinels -> their usual reading, ms; in order of their keys."""
    usual = usual_readings((item.key, item.reading_ms) for item in sentinel_readings(table))
    return {OpSpec.parse(key): reading_ms for key, reading_ms in sorted(usual.items())}


def latest_runs(table: LatencyTable) -> dict[int, str]:
    """Id -> status of the latest run, and of those of the same sweep on other devices."""
    rows = table.rows(
        "SELECT id, status FROM runs WHERE id = (SELECT max(id) FROM runs)"
        " OR json_extract(settings, '$.sweep') = (SELECT json_extract(settings, '$.sweep')"
        " FROM runs ORDER BY id DESC LIMIT 1) ORDER BY id"
    )
    return {row["id"]: row["status"] for row in rows}


def profiling_environment(table: LatencyTable) -> dict[str, Any] | None:
    """The machine of the latest run that profiled, as it was then; None where there is none."""
    rows = table.rows(
        "SELECT environment FROM runs WHERE kind = 'profile' ORDER BY id DESC LIMIT 1"
    )
    return json.loads(rows[0]["environment"]) if rows else None


def power_capped_groups(table: LatencyTable) -> tuple[int, int]:
    """Beside how many groups the GPU was at its power limit, and of how many its state is known."""
    (row,) = table.rows(
        "SELECT count(*) AS n, sum(throttle_reasons LIKE '%\"sw power cap\"%') AS capped"
        " FROM gpu_states WHERE phase = 'group'"
    )
    return row["capped"] or 0, row["n"]
