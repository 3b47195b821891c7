"""What the processes of tests/test_multi_device.py run: importable by a fresh interpreter."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fake_engine import FakeEngine

from latlut.engines.onnxruntime import OnnxRuntimeEngine
from latlut.errors import EngineError
from latlut.machine.cpu import allowed_cpus
from latlut.machine.pinning import pinned
from latlut.measure.parts import Part, run_parts
from latlut.measure.plans import plan_from_ops
from latlut.measure.supervising import Supervision
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_report import SweepSummary
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.measure.timing import TimingSettings
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.progress import Progress
from latlut.table.table import LatencyTable

OPS = [f"conv 4->4 at 8x{width}" for width in range(4, 13)]
QUICK = TimingSettings(min_time_s=0.001, time_cap_s=0.002, warmup_cap_s=0.002)
Report = Callable[[Any], None]


def measure_on_a_cpu(
    path: Path, count: int, index: int, report: Report, supervision: Supervision
) -> SweepSummary:
    """ONNX Runtime on a CPU of its own, which stands for a device with the name CPU-<number>."""
    cpus = allowed_cpus()
    engine = OnnxRuntimeEngine()
    with (
        pinned([cpus[index % len(cpus)]]),
        LatencyTable.create(path, identity_of(engine, "cpu", statistic="p10")) as table,
    ):
        sweep = Sweep(
            table,
            plan_from_ops(OPS),
            engine,
            SweepSettings(timing=QUICK, passes=4, group=3),
            listener=report,
            part=Part(index, count),
            sweep_id="together",
        )
        engine.device = replace(engine.device, uuid=f"CPU-{index}")
        return sweep.run()


def fail_in_the_second(
    path: Path, count: int, index: int, report: Report, supervision: Supervision
) -> SweepSummary:
    """As above, but the second part's device does not start."""
    if index == 1:
        raise EngineError("no kernel image is available for this device")
    return measure_on_a_cpu(path, count, index, report, supervision)


def measure_what_kills(
    path: Path, hangs: bool, index: int, report: Report, supervision: Supervision
) -> SweepSummary:
    """A scripted engine; two op specs end its process, or the second one keeps it for ever."""
    engine = FakeEngine()

    def act(workload: Workload, runs: int) -> None:
        if workload.specs == (OpSpec.parse(OPS[0]),):
            os.abort()
        if workload.specs == (OpSpec.parse(OPS[1]),):
            if not hangs:
                os._exit(0)
            signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
            time.sleep(1000)

    engine.on_sample = act
    with LatencyTable.create(path, identity_of(engine, "cpu", statistic="p10")) as table:
        engine.device = replace(engine.device, uuid=f"FAKE-{index}")
        return Sweep(
            table,
            plan_from_ops(OPS),
            engine,
            SweepSettings(timing=QUICK, passes=1, group=3, sentinels=0),
            listener=report,
            part=Part(index, 2),
            supervision=supervision,
        ).run()


def end_in_some_way(index: int, report: Report, supervision: Supervision) -> int:
    """A value, a defect, a crash."""
    report(f"hello from {index}")
    if index == 1:
        raise ZeroDivisionError("a defect")
    if index == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return index * 10


def measure_slowly(
    path: Path, count: int, index: int, report: Report, supervision: Supervision
) -> SweepSummary:
    """A sweep that would take minutes, of a scripted engine."""
    engine = FakeEngine()

    def slow(progress: Progress) -> None:
        report(progress)
        time.sleep(0.05)

    with LatencyTable.create(path, identity_of(engine, "cpu", statistic="p10")) as table:
        engine.device = replace(engine.device, uuid=f"FAKE-{index}")
        settings = SweepSettings(passes=100, group=1)
        return Sweep(
            table, plan_from_ops(OPS), engine, settings, listener=slow, part=Part(index, count)
        ).run()


def main(path: Path) -> None:
    """The parent of an interrupted sweep: says when both parts measure, then waits for them."""
    seen: set[int] = set()

    def listener(index: int, progress: Progress) -> None:
        if index not in seen:
            seen.add(index)
            print(f"part {index} measures", flush=True)

    engine = FakeEngine()
    LatencyTable.create(path, identity_of(engine, "cpu", statistic="p10")).close()
    try:
        run_parts(["one", "two"], partial(measure_slowly, path, 2), listener)
    except KeyboardInterrupt:
        print("stopped", flush=True)
        sys.exit(130)


if __name__ == "__main__":
    from part_workers import main as importable_main  # children import it under this name

    importable_main(Path(sys.argv[1]))
