"""What Datasette shows of tables: what each view and column means, the useful views first.

python -m latlut.table.datasette profiles/mine.db > metadata.json
datasette profiles/mine.db --metadata metadata.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from latlut.errors import LatlutError
from latlut.table.table import LatencyTable

_INTERVAL = {"ci_low_ms": "lower end of its 95% interval", "ci_high_ms": "upper end"}
_LATENCIES = {
    "op_spec": "operator with its shapes and options",
    "latency_ms": "latency by the table's statistic, median over passes, milliseconds",
    **_INTERVAL,
    "ci_percent": "half-width of the interval, percent of the latency",
    "passes": "passes that it rests on",
    "n": "timed runs that it rests on",
    "roofline_ms": "the least that the hardware's peak figures allow",
    "gmacs_per_s": "10^9 multiply-accumulates per second",
    "warnings": "what to know before using it",
    "predicted_from": "number of measured entries that it was predicted from; empty if measured",
}
#: View -> (what it shows, columns); in the order in which a reader wants them.
VIEWS = {
    "latencies": ("Entries: one operator configuration each.", _LATENCIES),
    "networks": (
        "Whole networks that latlut validate measured, beside their estimates.",
        {
            "validation": "number of the validation",
            "number": "of the network in it",
            "estimated_ms": "what the table estimated then, milliseconds",
            **_INTERVAL,
            "measured_ms": "mean of its two measurements, milliseconds",
            "error_percent": "by how much the estimate is too high",
            "repeat_percent": "by how much its two measurements differ",
            "is_inside": "1 if the measurement lies inside the estimate's interval",
            "plain_error_percent": "error of the sum of entries, without a calibration",
            "architecture": "the network as JSON",
        },
    ),
    "suspects": ("Entries with a warning, the widest interval first.", _LATENCIES),
    "readings": (
        "One row per operator configuration and pass.",
        {
            "reading_ms": "statistic of the samples of this pass, milliseconds",
            "speed_factor": "speed of the machine in this pass, by reference operators",
            "is_steady": "1 if the warm-up settled",
            "requeues": "how often it was measured again because the machine was disturbed",
        },
    ),
    "validation_log": (
        "Every latlut validate, and whether the machine was disturbed.",
        {
            "r": "correlation of estimates and measurements",
            "mape_percent": "mean absolute error of estimates",
            "r12": "correlation of the two measuring passes",
            "cpu_share": "share of the CPU that the measuring process got",
            "is_disturbed": "1 where other processes took part of it, or the passes disagree",
        },
    ),
    "run_log": ("Every latlut profile and import that wrote into this file.", {}),
    "failed": ("Operator configurations that could not be measured, and why.", {}),
    "launches": ("How runs were launched on a GPU, and the host's share.", {}),
    "gpu_log": ("Clocks, temperature and power of the GPU, group by group.", {}),
}
#: View -> the column that it is sorted by, the highest first.
_SORTED = {"latencies": "latency_ms", "suspects": "ci_percent"}
_FACETS = {"latencies": ["kind", "stride"], "networks": ["validation", "is_inside"]}


def metadata(paths: Sequence[str | Path]) -> dict[str, object]:
    """Datasette's metadata of table files: title, source, views in order, hidden tables.

    Args:
        paths: table names or files.

    Raises:
        LatlutError: one that is no table.
    """
    databases = {}
    for path in paths:
        with LatencyTable.open(path) as table:
            names = [
                row["name"]
                for row in table.rows("SELECT name FROM sqlite_master WHERE type='table'")
            ]
            source = table.fact("source")
            described: dict[str, object] = {name: {"hidden": True} for name in names}
            described |= {name: _view(name) for name in VIEWS}
            databases[table.path.stem] = {
                "description": f"Latencies: {table.identity}",
                **({"source": source} if source else {}),
                "tables": described,
                "queries": _QUERIES,
            }
    return {"title": "latlut latency tables", "databases": databases}


def _view(name: str) -> dict[str, object]:
    text, columns = VIEWS[name]
    found: dict[str, object] = {"description": text}
    if columns:
        found["columns"] = columns
    if name in _SORTED:
        found["sort_desc"] = _SORTED[name]
    if name in _FACETS:
        found["facets"] = _FACETS[name]
    return found


_QUERIES = {
    "by_kind": {
        "title": "Latency by kind of operator",
        "sql": "SELECT kind, count(*) AS entries, min(latency_ms) AS least_ms,"
        " max(latency_ms) AS most_ms FROM latencies GROUP BY kind ORDER BY most_ms DESC",
    },
    "worst_estimates": {
        "title": "Networks whose estimates are furthest off",
        "sql": "SELECT * FROM networks ORDER BY abs(error_percent) DESC LIMIT 20",
    },
}


def main(paths: Sequence[str]) -> int:
    """Write the metadata of ``paths`` to standard output; the exit code."""
    if not paths:
        sys.stderr.write("usage: python -m latlut.table.datasette TABLE... > metadata.json\n")
        return 2
    try:
        sys.stdout.write(json.dumps(metadata(paths), indent=1) + "\n")
    except LatlutError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
