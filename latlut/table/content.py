"""What every row of a table's file must be; which one is not, by its table, row and column.

SQLite keeps whatever it is given: text in a column of numbers, infinity, intervals upside down. A
file from elsewhere, or one with flipped bits, is compared with the rules here: those of the small
tables and of the entries where it is opened and read, all of them by ``table check`` and before a
merge.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from latlut.errors import TableError

#: Milliseconds of a latency: from a picosecond, less than any clock tells, to thirty years.
LEAST_MS, MOST_MS = 1e-9, 1e12
#: The largest relative half-width that entries may share, one of logarithms: two passes that
#: differ by a sixth give over 1.
MOST_SHARED_ERROR = 100.0
#: Of samples, passes and the like.
MOST_COUNT = 2**31 - 1
_MOST_BUILDS = 10_000


@dataclass(frozen=True)
class Rule:
    """A column, the SQL condition under which its value is wrong, and what is expected."""

    column: str
    wrong: str
    expected: str

    def or_null(self) -> Rule:
        """The same for a column that may be NULL."""
        wrong = f"{self.column} IS NOT NULL AND ({self.wrong})"
        return Rule(self.column, wrong, f"{self.expected}, or NULL")


def _number(column: str, low: float, high: float, expected: str) -> Rule:
    # Comparisons with text hold or not by SQLite's order of types; what counts is the type.
    wrong = (
        f"typeof({column}) NOT IN ('integer', 'real') OR NOT {column} BETWEEN {low!r} AND {high!r}"
    )
    return Rule(column, wrong, expected)


def _latency(column: str) -> Rule:
    rule = _number(column, -MOST_MS, MOST_MS, "")
    positive = f"(SELECT mode FROM identity) IS NOT 'in-context' AND {column} < {LEAST_MS!r}"
    expected = "finite milliseconds, above 0 where they are no difference"
    return Rule(column, f"{rule.wrong} OR {positive}", expected)


def _positive_ms(column: str) -> Rule:
    return _number(column, LEAST_MS, MOST_MS, "finite milliseconds above 0")


def _finite(column: str) -> Rule:
    return _number(column, -MOST_MS, MOST_MS, "a finite number").or_null()


def _not_negative(column: str) -> Rule:
    return _number(column, 0.0, MOST_MS, "a finite number of at least 0").or_null()


def _count(column: str, least: int = 0, most: int = MOST_COUNT) -> Rule:
    wrong = f"typeof({column}) <> 'integer' OR NOT {column} BETWEEN {least} AND {most}"
    return Rule(column, wrong, f"a whole number from {least} to {most}")


def _text(column: str) -> Rule:
    return Rule(column, f"typeof({column}) <> 'text'", "text")


def _json(column: str, kind: str = "object") -> Rule:
    wrong = (
        f"CASE WHEN typeof({column}) <> 'text' THEN 1 WHEN NOT json_valid({column}) THEN 1"
        f" ELSE json_type({column}) <> '{kind}' END"
    )
    return Rule(column, wrong, f"a JSON {kind}")


def _blob(column: str) -> Rule:
    return Rule(column, f"typeof({column}) <> 'blob'", "compressed samples").or_null()


#: Of few samples one end is not known.
_ENDS = (
    _finite("ci_low_ms"),
    _finite("ci_high_ms"),
    Rule("ci_low_ms", "ci_low_ms > ci_high_ms", "at most ci_high_ms"),
)
_INTERVAL = (
    *_ENDS,
    Rule("ci_low_ms", "(ci_low_ms IS NULL) <> (ci_high_ms IS NULL)", "both ends or neither"),
)
_MOST_INTEGER = 2**63 - 1

RULES: dict[str, tuple[Rule, ...]] = {
    "op_specs": (
        *map(_text, ("key", "kind")),
        *(_count(name, 1) for name in ("in_channels", "out_channels", "stride", "batch")),
        *(_count(name, 1) for name in ("height", "width")),
        _json("options"),
        *(_count(n, 0, _MOST_INTEGER).or_null() for n in ("macs", "params", "moved_bytes")),
    ),
    "runs": (
        *map(_text, ("kind", "started_at", "status", "latlut_version")),
        *(_text(name).or_null() for name in ("ended_at", "plan", "plan_hash")),
        *map(_json, ("settings", "environment")),
        *(_json(name).or_null() for name in ("space", "seconds", "environment_end")),
    ),
    "passes": (
        _count("run_id", 1),
        _count("pass_index"),
        *map(_text, ("started_at", "device")),
        _positive_ms("speed_factor").or_null(),
        _not_negative("speed_error"),
        _text("quarantine").or_null(),
    ),
    "sentinel_readings": (_count("group_index"), _text("at"), _positive_ms("reading_ms")),
    "measurements": (
        _latency("reading_ms"),
        _count("n", 1),
        _count("group_index").or_null(),
        _count("build_index", 0, _MOST_BUILDS),
        _count("requeues"),
        _count("warmup_runs").or_null(),
        _count("is_steady", 0, 1).or_null(),
        _text("at"),
        *_ENDS,
        *map(_not_negative, ("min_ms", "p10_ms", "median_ms", "p90_ms", "max_ms", "cpu_share")),
        *(_positive_ms(name).or_null() for name in ("with_ms", "without_ms")),
        *map(_blob, ("samples", "without_samples")),
        _not_negative("host_share"),
        _text("launch").or_null(),
        _json("turn_sizes", "array").or_null(),
    ),
    "entries": (
        _latency("latency_ms"),
        *_INTERVAL,
        *map(_not_negative, ("own_error", "own_error_ms", "build_error", "build_sd", "pass_sd")),
        *map(_not_negative, ("roofline_ms", "host_share", "device_error", "device_sd")),
        _not_negative("cpu_share"),
        _count("devices", 1, _MOST_BUILDS),
        _text("launch").or_null(),
        *(_count(name, 0) for name in ("passes", "n")),
        _count("predicted_from", 1).or_null(),
        Rule(
            "n",
            "(n = 0 OR passes = 0) AND predicted_from IS NULL",
            "above 0 with passes above 0, unless the entry is predicted",
        ),
        _count("builds", 1, _MOST_BUILDS + 1),
        *map(_text, ("warnings", "updated_at")),
    ),
    "failures": (*map(_text, ("at", "message")),),
    "facts": (*map(_text, ("name", "value")),),
    "subgraphs": (
        Rule(
            "digest",
            "typeof(digest) <> 'text' OR length(digest) <> 40 OR digest GLOB '*[^0-9a-f]*'",
            "forty hexadecimal digits",
        ),
        Rule("label", "typeof(label) <> 'text' OR length(label) > 1000", "text of 1000 characters"),
        Rule("graph", "typeof(graph) <> 'blob' OR length(graph) > 4194304", "a graph of 4 MiB"),
    ),
    "gpu_states": (
        *map(_text, ("phase", "at", "device")),
        _count("group_index").or_null(),
        *map(_finite, ("sm_mhz", "memory_mhz", "temperature_c", "power_w", "power_limit_w")),
        *(_json(name, "array").or_null() for name in ("throttle_reasons", "other_processes")),
        *map(_finite, ("performance_state", "is_persistent", "is_disturbed")),
    ),
    "validations": (
        _count("networks"),
        *map(_text, ("at", "sampler", "latlut_version")),
        *map(_json, ("settings", "agreement")),
        Rule(
            "input_size",
            "typeof(input_size) <> 'text' OR input_size NOT GLOB '[1-9]*x[1-9]*'"
            " OR input_size GLOB '*[^0-9x]*' OR input_size GLOB '*x*x*' OR length(input_size) > 15",
            "a size such as 512x1024",
        ).or_null(),
        _count("batch", 1).or_null(),
        _not_negative("cpu_share"),
    ),
    "validation_networks": (
        _text("architecture"),
        *map(_positive_ms, ("measured_first_ms", "measured_second_ms")),
        *map(_finite, ("estimated_ms", "ci_low_ms", "ci_high_ms", "plain_ms")),
        _json("readings").or_null(),
    ),
    "calibrations": (
        *map(_count, ("version", "networks")),
        *map(_text, ("at", "model", "latlut_version")),
        _json("scores"),
    ),
    "calibration_networks": (
        *map(_text, ("architecture", "source")),
        *map(_count, ("validation_id", "position")),
        _count("is_fitted", 0, 1),
    ),
}

#: Small tables, that any command may read; those behind the entries; and what entries are made of.
READ_WHEN_OPENED = ("facts", "runs", "failures", "validations", "validation_networks",
                    "calibrations", "calibration_networks")  # fmt: skip
READ_WITH_ENTRIES = ("op_specs", "entries", "subgraphs")
READ_BY_SUMMARY = ("op_specs", "passes", "sentinel_readings", "measurements", "gpu_states")


def wrong_rows(connection: sqlite3.Connection, tables: Iterable[str]) -> Iterator[str]:
    """Of each SQL table that has rows that cannot be, a phrase that names the first of them."""
    for table in tables:
        rules = RULES[table]
        which = f"CASE {' '.join(f'WHEN {r.wrong} THEN {i}' for i, r in enumerate(rules))} END"
        found = connection.execute(
            f"SELECT rowid, {which} AS which FROM {table} WHERE which IS NOT NULL LIMIT 1"
        ).fetchone()
        if found is not None:
            yield _phrase(connection, table, found[0], rules[found[1]])
        elif table == "facts":
            facts = connection.execute("SELECT name, value FROM facts").fetchall()
            yield from filter(None, (_wrong_fact(*fact) for fact in facts))


def refuse_wrong(connection: sqlite3.Connection, path: Path, tables: Iterable[str]) -> None:
    """Refuse a file with a row that cannot be.

    Raises:
        TableError: names the first.
    """
    for phrase in wrong_rows(connection, tables):
        raise TableError(
            f"{path}: {phrase}: the file is damaged, or somebody has changed it\n"
            "restore a copy, or profile into a new file with --table"
        )


def _phrase(connection: sqlite3.Connection, table: str, row: int, rule: Rule) -> str:
    """``entries row 5 (conv 8->8 ...): latency_ms is -1.0, expected ...``."""
    # As bytes: what is wrong may be that the text is not UTF-8.
    sql = f"SELECT CAST(substr(quote({rule.column}), 1, 80) AS BLOB) FROM {table} WHERE rowid = ?"
    (value,) = connection.execute(sql, [row]).fetchone() or (b"?",)
    columns = {found[1] for found in connection.execute(f"PRAGMA table_info({table})")}
    spec = ""
    if "op_spec_id" in columns:
        sql = (
            "SELECT CAST(substr(key, 1, 200) AS BLOB) FROM op_specs"
            f" WHERE id = (SELECT op_spec_id FROM {table} WHERE rowid = ?)"
        )
        (key,) = connection.execute(sql, [row]).fetchone() or (b"no operator configuration",)
        spec = f" ({_shown(key)})"
    return f"{table} row {row}{spec}: {rule.column} is {_shown(value)}, expected {rule.expected}"


def _shown(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return "".join(c if c.isprintable() else "?" for c in text)


#: Facts that are numbers, with their range.
_NUMBERS = {
    "shared_error": (0.0, MOST_SHARED_ERROR),
    "elasticity": (-MOST_MS, MOST_MS),
    "launch_floor_ms": (0.0, MOST_MS),
}
_PEAKS = {"flops_per_s", "memory_bytes_per_s", "cache_bytes_per_s"}


def _wrong_fact(name: str, value: str) -> str:
    if name in _NUMBERS:
        low, high = _NUMBERS[name]
        try:
            is_right = low <= float(value) <= high
        except ValueError:
            is_right = False
        expected = f"a number from {low:g} to {high:g}"
    elif name == "roofline":
        peaks = _parsed(value)
        is_right = isinstance(peaks, dict) and peaks.keys() <= _PEAKS and all(
            peak is None or (type(peak) in (int, float) and 0 < peak < math.inf)
            for peak in peaks.values()
        )  # fmt: skip
        expected = "a JSON object of peak figures above 0"
    elif name == "own_modules":
        modules = _parsed(value)
        is_right = isinstance(modules, list) and all(isinstance(m, str) for m in modules)
        expected = "a JSON array of names"
    else:
        return ""
    return "" if is_right else f"fact {name} is {_shown(value[:80])!r}, expected {expected}"


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
