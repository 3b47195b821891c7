"""How commands fare with a table of a million entries.

    python tests/benchmarks/bench_scale.py                     makes the table, then all commands
    python tests/benchmarks/bench_scale.py --keep big.db       the same, and keeps it
    python tests/benchmarks/bench_scale.py --entries 100000

Every entry has one measurement with 25 samples. Each command is a process of its own; printed are
its CPU seconds, its wall seconds and its largest resident memory. Where other processes share the
machine, the CPU seconds are what counts.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from latlut.engines import run_environment
from latlut.opspec import OpSpec
from latlut.table import recording
from latlut.table.identity import Identity
from latlut.table.samples import pack_samples
from latlut.table.table import LatencyTable
from latlut.timestamps import now_text

SAMPLES = 25
#: An op spec that the table does not have.
MISSING = OpSpec("conv", (7, 9, 9), 7, kernel_size=7)


def some_specs(count: int) -> Iterator[OpSpec]:
    """Convolutions of four kinds, no two alike."""
    kinds = ("conv", "conv_2x", "zoomed_conv", "zoomed_conv_2x")
    for number in range(count):
        number, kind = divmod(number, len(kinds))
        number, out = divmod(number, 64)
        number, channels = divmod(number, 64)
        yield OpSpec(kinds[kind], (8 * (1 + channels), 8 + number, 64), 8 * (1 + out))


def make_table(path: Path, entries: int) -> None:
    """Fill a new table in the way that a sweep does, but in one transaction and without timing."""
    identity = Identity("cpu", "benchmark", "none", "0")
    generator = np.random.default_rng(0)
    blobs = [
        pack_samples(np.rint(1e6 * generator.lognormal(0, 0.01, SAMPLES)).astype(np.int64))
        for _ in range(1000)
    ]
    with LatencyTable.create(path, identity) as table, table.writing() as db:
        ids = list(recording.add_op_specs(table, some_specs(entries)).values())
        run = recording.start_run(table, "profile", settings={}, environment=run_environment())
        at = now_text()
        pass_id = recording.start_pass(table, run, 0)
        db.conn.executemany(
            "INSERT INTO measurements (op_spec_id, pass_id, group_index, at, n, reading_ms, min_ms,"
            " p10_ms, median_ms, p90_ms, max_ms, ci_low_ms, ci_high_ms, warmup_runs, is_steady,"
            " parity, samples, cpu_share)"
            f" VALUES (?, {pass_id}, ?, '{at}', {SAMPLES}, 1.0, 0.9, 1.0, 1.0, 1.1, 1.2, 0.99,"
            " 1.01, 3, 1, 1e-6, ?, 1.0)",
            ((own, place // 12, blobs[place % 1000]) for place, own in enumerate(ids)),
        )
        db.conn.executemany(
            "INSERT INTO entries (op_spec_id, latency_ms, ci_low_ms, ci_high_ms, own_error,"
            " own_error_ms, passes, n, warnings, updated_at)"
            f" VALUES (?, 1.0, 0.99, 1.01, 0.01, 0.01, 1, {SAMPLES}, '', '{at}')",
            ((own,) for own in ids),
        )
        db.conn.execute("UPDATE op_specs SET macs = 1000000, params = 1000, moved_bytes = 10000")
        recording.end_run(table, run, "done", seconds={"total": 1.0})


#: Runs a command from a small process: a child's largest memory counts from that of its parent.
_LAUNCHER = """
import os, subprocess, sys, time
started = time.monotonic()
with open(sys.argv[1], "wb") as file:
    process = subprocess.Popen(sys.argv[2:], stdout=file, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
wall_s = time.monotonic() - started
print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss)
"""


def cost_of(words: list[str], output: Path) -> tuple[int, float, float, float]:
    """(exit code, CPU seconds, wall seconds, MB of the largest resident memory) of a command."""
    launcher = [sys.executable, "-S", "-c", _LAUNCHER, str(output)]
    said = subprocess.run([*launcher, *words], stdout=subprocess.PIPE, text=True, check=True)
    code, cpu_s, wall_s, peak_kb = said.stdout.split()
    return int(code), float(cpu_s), float(wall_s), int(peak_kb) / 1024


def main() -> None:
    """Print what each command takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="where the table stays; used if it is there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.keep or Path(folder) / "big.db"
        if not path.exists():
            make_table(path, arguments.entries)
        copy = Path(folder) / "copy.db"
        shutil.copyfile(path, copy)
        print(f"{arguments.entries} entries, {path.stat().st_size / 1e6:.0f} MB")
        latlut = [sys.executable, "-m", "latlut"]
        rows = Path(folder) / "rows.json"
        opening = "import sys; from latlut import LatencyTable; LatencyTable.open(sys.argv[1])"
        asking = (
            "import sys; from latlut import LatencyTable, OpSpec\n"
            f"LatencyTable.open(sys.argv[1]).lookup(OpSpec.parse({MISSING.key!r}))"
        )
        estimate = [*latlut, "estimate", "--arch", "fasterseg-student", "--table", str(path)]
        commands = [
            ("import latlut", [sys.executable, "-c", "import latlut, latlut.table.table"]),
            ("open", [sys.executable, "-c", opening, str(path)]),
            ("a missing entry", [sys.executable, "-c", asking, str(path)]),
            ("estimate, entries are missing", estimate),
            ("table info", [*latlut, "table", "info", str(path)]),
            ("table query --json, all rows",
             [*latlut, "table", "query", str(path), "--json", "--limit", str(10**9)]),
            ("table check", [*latlut, "table", "check", str(path)]),
            ("table merge that adds nothing", [*latlut, "table", "merge", str(path), str(copy)]),
        ]  # fmt: skip
        for name, words in commands:
            code, cpu_s, wall_s, mb = cost_of(words, rows)
            print(
                f"{name:32} {cpu_s:6.1f} s CPU {wall_s:6.1f} s wall {mb:6.0f} MB  exit {code}",
                flush=True,
            )


if __name__ == "__main__":
    main()
