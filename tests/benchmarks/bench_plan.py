"""How a sweep over a plan of 100,000 op specs keeps its budget, and how soon it goes on.

    python tests/benchmarks/bench_plan.py                        a scripted engine, nothing is run
    python tests/benchmarks/bench_plan.py --command 20 40        the command, with ONNX Runtime

Without ``--command`` the scripted engine of the unit tests is measured, so that all that is seen
is the sweep's own work, and budgets count CPU seconds: other processes do not change them. Printed
are, for each budget, how far the sweep went over it; then what it takes, with every op spec
measured once, to see that nothing is left, to start a second pass (up to its first reading), and to
preview it. With ``--command`` budgets are of wall time, as the command's are.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from fake_engine import FakeEngine

from latlut.engines import run_environment
from latlut.measure import budget, stopwatch
from latlut.measure.plans import Plan, plan_from_ops
from latlut.measure.preview import preview
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.progress import Progress
from latlut.table import recording
from latlut.table.samples import pack_samples
from latlut.table.summary import summarise
from latlut.table.table import LatencyTable
from latlut.timestamps import now_text


class CpuClock:
    """In place of the module ``time``."""

    monotonic = staticmethod(time.process_time)


class Begun(Exception):
    """The first reading is there."""


def some_ops(count: int) -> list[str]:
    """Small convolutions, no two alike."""
    return [
        f"conv {1 + number % 50}->{1 + number // 50 % 50} stride 1 at 8x{4 + number // 2500}"
        for number in range(count)
    ]


@contextmanager
def printed(name: str) -> Iterator[None]:
    """Print what the block takes."""
    wall, cpu = time.monotonic(), time.process_time()
    try:
        yield
    finally:
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        print(f"{name:44} {cpu:6.1f} s CPU {wall:6.1f} s wall", flush=True)


def over_budget_s(path: Path, plan: Plan, budget_s: float) -> tuple[float, int]:
    """CPU seconds that a sweep into a new table took beyond its budget, and its readings."""
    engine = FakeEngine()
    started = time.process_time()
    with LatencyTable.create(path, identity_of(engine, "cpu", statistic="p10")) as table:
        found = Sweep(table, plan, engine, SweepSettings(budget_s=budget_s)).run()
    return time.process_time() - started - budget_s, found.measured


def measured_once(path: Path, plan: Plan) -> None:
    """A table with one reading of every op spec, as a sweep's first pass leaves it."""
    engine, blob = FakeEngine(), pack_samples(np.full(25, 10**6))
    with LatencyTable.create(path, identity_of(engine, "cpu", statistic="p10")) as table:
        ids = recording.add_op_specs(table, plan.specs)
        run = recording.start_run(
            table, "profile", settings=SweepSettings().to_dict(), environment=run_environment(),
            plan=plan.name, plan_hash=plan.hash,
        )  # fmt: skip
        pass_id = recording.start_pass(table, run, 0)
        with table.writing() as db:
            db.conn.executemany(
                "INSERT INTO measurements (op_spec_id, pass_id, group_index, at, n, reading_ms,"
                " is_steady, parity, samples, cpu_share) VALUES (?, ?, ?, ?, 25, 1.0, 1, 0, ?, 1)",
                [
                    (own, pass_id, place // 12, now_text(), blob)
                    for place, own in enumerate(ids.values())
                ],
            )
            db.conn.execute("UPDATE op_specs SET macs = 1, params = 1, moved_bytes = 1")
        recording.end_run(table, run, "done")
        with printed("computing the entries"):
            summarise(table)


def resume(path: Path, plan: Plan, passes: int) -> str:
    """Go on with a sweep until it takes its first reading; its status where there is none."""
    engine = FakeEngine()

    def stop(progress: Progress) -> None:
        print(f"  first reading after {time.process_time() - started:.1f} s CPU")
        raise Begun

    started = time.process_time()
    with LatencyTable.create(path, identity_of(engine, "cpu", statistic="p10")) as table:
        settings = SweepSettings(passes=passes)
        try:
            return Sweep(table, plan, engine, settings, listener=stop).run().status
        except Begun:
            return "begun"


def scripted(plan: Plan, budgets: list[float], folder: Path) -> None:
    """All figures with the scripted engine."""
    overs = []
    budget.time = stopwatch.time = CpuClock()  # type: ignore[assignment]
    for place, budget_s in enumerate(budgets):
        over_s, readings = over_budget_s(folder / f"{place}.db", plan, budget_s)
        overs.append(over_s)
        print(f"budget {budget_s:.0f} s: {over_s:+.1f} s, {readings} readings", flush=True)
    print(f"beyond the budget, median of {len(overs)}: {np.median(overs):+.1f} s")
    path = folder / "full.db"
    measured_once(path, plan)
    with printed("resume, nothing is left"):
        assert resume(path, plan, passes=1) == "done"
    with printed("resume up to the first reading, and the end"):
        assert resume(path, plan, passes=2) == "begun"
    with printed("preview of the second pass"):
        engine = FakeEngine()
        identity = identity_of(engine, "cpu", statistic="p10")
        preview(plan, engine, identity, path, SweepSettings(passes=2))


def by_command(ops: list[str], budgets: list[float], folder: Path) -> None:
    """The command's wall time beyond each budget, with ONNX Runtime."""
    plan = folder / "plan.toml"
    plan.write_text("format = 1\nops = [\n" + "".join(f'  "{op}",\n' for op in ops) + "]\n")
    overs = []
    for place, budget_s in enumerate(budgets):
        words = [sys.executable, "-m", "latlut", "profile", "--cpu", "--engine", "onnxruntime",
                 "--plan", str(plan), "--table", str(folder / f"c{place}.db"),
                 "--budget", f"{budget_s:g}s"]  # fmt: skip
        started = time.monotonic()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        overs.append(time.monotonic() - started - budget_s)
        last = (done.stdout or done.stderr).strip().splitlines()[0]
        print(f"budget {budget_s:.0f} s: {overs[-1]:+.1f} s; {last}", flush=True)
    print(f"beyond the budget, median of {len(overs)}: {np.median(overs):+.1f} s")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--specs", type=int, default=100_000)
    parser.add_argument("--budgets", type=float, nargs="+", default=[15, 25, 35])
    parser.add_argument("--command", type=float, nargs="+", help="budgets of the command instead")
    arguments = parser.parse_args()
    ops = some_ops(arguments.specs)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.command:
            by_command(ops, arguments.command, Path(folder))
        else:
            scripted(plan_from_ops(ops), arguments.budgets, Path(folder))


if __name__ == "__main__":
    main()
