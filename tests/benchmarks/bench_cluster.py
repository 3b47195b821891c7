"""What a sweep by Ray's workers costs beside a sweep in one process.

    python tests/benchmarks/bench_cluster.py [--rounds 3] [--passes 4] [--plan tiny]

Rounds alternate between a sweep in this process, one by one worker, and one by two, with ONNX
Runtime on one thread each. Printed are the seconds from the first reading to the last, each beside
that of the first kind, and how many entries of the two workers' table have intervals that overlap
those of the first kind's. Two workers share caches and memory: two CPUs are not twice one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from latlut.cluster.sweep import sweep_on_ray
from latlut.engines.choosing import DeviceChoice
from latlut.engines.onnxruntime import OnnxRuntimeEngine
from latlut.measure.plans import Plan, load_plan
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.progress import Progress
from latlut.table.entry import Entry
from latlut.table.table import LatencyTable


class Readings:
    """When each reading came; the listener of a sweep."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, progress: Progress) -> None:
        self.times.append(time.monotonic())

    @property
    def seconds(self) -> float:
        """From the first to the last, for as many readings as there are between."""
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)


def alone(plan: Plan, settings: SweepSettings, path: Path) -> float:
    """Seconds for a reading of a sweep in this process."""
    engine, readings = OnnxRuntimeEngine(threads=1), Readings()
    identity = identity_of(engine, "cpu", statistic=settings.timing.statistic)
    with LatencyTable.create(path, identity) as table:
        Sweep(table, plan, engine, settings, listener=readings).run()
    return readings.seconds


def by_workers(count: int) -> Callable[[Plan, SweepSettings, Path], float]:
    """The same of a sweep by Ray's workers."""

    def sweep(plan: Plan, settings: SweepSettings, path: Path) -> float:
        choice, readings = DeviceChoice(None, True, "onnxruntime", "fp32", 1), Readings()
        sweep_on_ray(
            plan, choice, settings, "local", lambda identity: path,
            workers_per_node=count, listener=readings,
        )  # fmt: skip
        return readings.seconds

    return sweep


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in (("rounds", 3), ("passes", 4)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--plan", default="tiny")
    options = parser.parse_args()
    plan, settings = load_plan(options.plan), SweepSettings(passes=options.passes)
    kinds = {"in one process": alone, "one worker": by_workers(1), "two workers": by_workers(2)}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    overlaps = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            tables = {}
            for name, sweep in kinds.items():
                tables[name] = Path(folder) / f"{number}-{name.replace(' ', '-')}.db"
                seconds[name].append(sweep(plan, settings, tables[name]))
                print(f"round {number}, {name}: {1e3 * seconds[name][-1]:.1f} ms a reading")
            overlaps.append(_overlap(tables["in one process"], tables["two workers"]))
    for name, values in seconds.items():
        ratios = np.array(values) / seconds["in one process"]
        print(f"{name:16} {np.median(ratios):.3f} ({ratios.min():.3f} to {ratios.max():.3f})")
    print("intervals that overlap:", ", ".join(f"{share:.1%}" for share in overlaps))


def _overlap(one: Path, other: Path) -> float:
    with LatencyTable.open(one) as first, LatencyTable.open(other) as second:
        pairs = [(_interval(entry), _interval(second.lookup(entry.spec))) for entry in first]
        return float(np.mean([a[0] <= b[1] and b[0] <= a[1] for a, b in pairs]))


def _interval(entry: Entry) -> tuple[float, float]:
    low, high = entry.ci_low_ms, entry.ci_high_ms
    return (entry.latency_ms if low is None else low, entry.latency_ms if high is None else high)


if __name__ == "__main__":
    main()
