"""How fast a table answers: opening, looking up a whole plan, and starting the command line.

    python tests/benchmarks/bench_lookup.py

Each figure stands beside a plain way of doing the same in the same process: one SQL query per
entry, and a bare interpreter.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from latlut.measure.plans import load_plan
from latlut.opspec import OpSpec
from latlut.table import recording
from latlut.table.identity import Identity
from latlut.table.table import LatencyTable
from latlut.timestamps import now_text

ENTRIES = 10_000


def quantiles(action: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """(p10, median, p90) seconds of ``repeats`` runs."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    low, middle, high = np.quantile(seconds, [0.1, 0.5, 0.9])
    return float(low), float(middle), float(high)


def make_table(path: Path) -> list[OpSpec]:
    """A table of ``ENTRIES`` entries: the FasterSeg plan and as many convolutions as it takes."""
    specs = list(load_plan("fasterseg", (256, 512)).specs)
    specs += [
        OpSpec("conv", (8 + number % 100, 16, 16 + number // 100), 8)
        for number in range(ENTRIES - len(specs))
    ]
    identity = Identity("cpu", "benchmark", "none", "0")
    with LatencyTable.create(path, identity) as table:
        ids = recording.add_op_specs(table, specs)
        with table.writing() as db:
            db.conn.executemany(
                "INSERT INTO entries (op_spec_id, latency_ms, ci_low_ms, ci_high_ms, own_error,"
                " passes, n, updated_at) VALUES (?, 1.0, 0.99, 1.01, 0.01, 5, 100, ?)",
                [(ids[spec.key], now_text()) for spec in specs],
            )
    return specs


def main() -> None:
    """Print every figure with its spread."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.db"
        make_table(path)

        def open_and_read() -> None:
            with LatencyTable.open(path) as table:
                len(table)

        low, middle, high = (1e3 * value for value in quantiles(open_and_read, 21))
        print(f"open {ENTRIES} entries: {middle:.1f} ms (p10 {low:.1f}, p90 {high:.1f})")

        plan = load_plan("fasterseg", (256, 512)).specs
        connection = sqlite3.connect(path)
        sql = (
            "SELECT latency_ms FROM entries JOIN op_specs ON op_specs.id = op_spec_id WHERE key = ?"
        )
        with LatencyTable.open(path) as table:
            table.latencies_ms(plan)
            ratios = []
            for _ in range(15):
                fast = quantiles(lambda: table.latencies_ms(plan), 20)
                plain = quantiles(
                    lambda: [connection.execute(sql, [spec.key]).fetchone() for spec in plan], 3
                )
                ratios.append(plain[1] / fast[1])
            per_entry = [1e6 * value / len(plan) for value in fast]
        print(
            f"vectorised lookup of {len(plan)} op specs: {per_entry[1]:.3f} us an entry "
            f"(p10 {per_entry[0]:.3f}, p90 {per_entry[2]:.3f}); "
            f"{np.median(ratios):.0f}x faster than one SQL query per entry "
            f"({min(ratios):.0f}x to {max(ratios):.0f}x)"
        )

    def command(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *arguments], capture_output=True, check=True)

    shown, bare = command("-m", "latlut", "--help"), command("-c", "pass")
    shown()
    pairs = [(quantiles(shown, 1)[1], quantiles(bare, 1)[1]) for _ in range(11)]
    times = np.quantile([pair[0] for pair in pairs], [0.1, 0.5, 0.9])
    ratio = np.median([pair[0] / pair[1] for pair in pairs])
    print(
        f"latlut --help: {times[1]:.3f} s (p10 {times[0]:.3f}, p90 {times[2]:.3f}), "
        f"{ratio:.1f}x a bare interpreter"
    )


if __name__ == "__main__":
    main()
