"""What is printed of a table: what it holds in a few rows per subject, and entries that fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from latlut.errors import LatlutError, did_you_mean
from latlut.table.table import LatencyTable

#: Column titles -> cells.
Rows = list[dict[str, Any]]

_OVERVIEW = {
    "kinds": "SELECT kind, count(*) AS entries, count(predicted_from) AS predicted,"
    " min(latency_ms) AS least_ms,"
    " max(latency_ms) AS most_ms FROM latencies GROUP BY kind ORDER BY kind",
    "runs": "SELECT * FROM run_log",
    "validations": "SELECT * FROM validation_log",
    "calibrations": "SELECT id, at, version, networks,"
    " json_extract(scores, '$.held_out.plain.mape_percent') AS plain_mape_percent,"
    " json_extract(scores, '$.held_out.calibrated.mape_percent') AS mape_percent,"
    " json_extract(scores, '$.held_out.coverage') AS coverage FROM calibrations",
    "failed": "SELECT * FROM failed",
    "builds": "SELECT builds, count(*) AS entries, avg(build_percent) AS build_percent,"
    " avg(build_sd_percent) AS build_sd_percent, avg(pass_sd_percent) AS pass_sd_percent"
    " FROM latencies GROUP BY builds ORDER BY builds",
    "devices": "SELECT devices, count(*) AS entries, avg(device_percent) AS device_percent,"
    " avg(device_sd_percent) AS device_sd_percent FROM latencies WHERE devices > 1"
    " GROUP BY devices ORDER BY devices",
    "quarantine": "SELECT device, quarantine, count(*) AS readings FROM readings"
    " WHERE quarantine IS NOT NULL GROUP BY device, quarantine",
    "gpus": "SELECT device, count(DISTINCT run) AS runs, count(*) AS groups,"
    " min(sm_mhz) AS least_sm_mhz, max(sm_mhz) AS most_sm_mhz,"
    " max(temperature_c) AS most_temperature_c, max(power_w) AS most_power_w,"
    " sum(is_disturbed) AS throttled FROM gpu_log WHERE phase = 'group' GROUP BY device",
}


#: Subjects of sweeps on several devices alone; left out of others.
_OF_SEVERAL_DEVICES = {"devices", "quarantine"}


def overview(table: LatencyTable) -> dict[str, Rows]:
    """What a table holds, by subject: entries by kind and by builds, runs, validations, ..."""
    found = {subject: table.rows(sql) for subject, sql in _OVERVIEW.items()}
    return {
        subject: rows
        for subject, rows in found.items()
        if rows or subject not in _OF_SEVERAL_DEVICES
    }


def entry_columns(table: LatencyTable) -> list[str]:
    """Columns of the view ``latencies``."""
    return [
        str(row["name"]) for row in table.rows("SELECT name FROM pragma_table_info('latencies')")
    ]


def check_column(table: LatencyTable, name: str, option: str) -> str:
    """The column of that name.

    Raises:
        LatlutError: there is none; names the nearest, and the option that asked for it.
    """
    known = entry_columns(table)
    if name not in known:
        raise LatlutError(f"{option}: no column {name!r}; {did_you_mean(name, known)}")
    return name


def entries_where(
    table: LatencyTable,
    kind: str | None,
    keys: Sequence[str],
    where: str | None,
    limit: int,
    sort: str = "op_spec",
) -> Iterator[dict[str, Any]]:
    """At most ``limit`` rows of the view ``latencies``, as they are read.

    Args:
        table: to look in.
        kind: only this operator.
        keys: only these op specs; of all if empty.
        where: an SQL condition.
        limit: most rows.
        sort: column to sort by, with ``-`` in front for the largest first.

    Raises:
        LatlutError: the table has no such operator or column; names those that it has.
        TableError: the condition is not SQL.
    """
    clause, values = _clause(table, kind, keys, where)
    column = check_column(table, sort.removeprefix("-"), "--sort")
    order = f'"{column}" {"DESC" if sort.startswith("-") else "ASC"} NULLS LAST'
    sql = f"SELECT * FROM latencies {clause} ORDER BY {order}, op_spec LIMIT {limit}"
    return table.each_row(sql, values)


def count_where(
    table: LatencyTable, kind: str | None, keys: Sequence[str], where: str | None
) -> int:
    """How many rows ``entries_where`` would give without a limit."""
    clause, values = _clause(table, kind, keys, where)
    return int(table.rows(f"SELECT count(*) AS n FROM latencies {clause}", values)[0]["n"])


def _clause(
    table: LatencyTable, kind: str | None, keys: Sequence[str], where: str | None
) -> tuple[str, list[str]]:
    """What entries have to fulfil, as SQL, and the values that it names."""
    conditions: list[str] = []
    values: list[str] = []
    if kind:
        known = [str(r["kind"]) for r in table.rows("SELECT DISTINCT kind FROM latencies")]
        if kind not in known:
            raise LatlutError(
                f"{table.title} has no operator {kind!r}; {did_you_mean(kind, known)}"
            )
        conditions.append("kind = ?")
        values.append(kind)
    if keys:
        conditions.append(f"op_spec IN ({', '.join('?' for _ in keys)})")
        values += keys
    if where:
        conditions.append(f"({where})")
    return f"WHERE {' AND '.join(conditions)}" if conditions else "", values
