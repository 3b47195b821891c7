"""A busy machine is noticed, said, marked in the table, and not learnt from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_engine import FakeEngine
from onnx_models import segmenter

from latlut.cli import main
from latlut.cli.progress import progress_bar
from latlut.engines import engine_class
from latlut.engines.base import Device
from latlut.errors import DeviceBusyError
from latlut.machine.lock import device_lock
from latlut.measure import cpu_share, waiting
from latlut.measure.bench import BenchSettings, bench_onnx
from latlut.measure.cpu_share import _Moment, _share, watching_cpu
from latlut.measure.held_device import measuring_on
from latlut.measure.networks import NetworkTimer
from latlut.measure.plans import Plan
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.measure.timing import TimingSettings
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.progress import Progress
from latlut.stats.machine_speed import LEAST_CPU_SHARE
from latlut.table import validations
from latlut.table.table import LatencyTable

needs_linux = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system pins no processes"
)


@pytest.mark.parametrize(
    ("own_s", "busy_s", "stolen_s", "threads", "cpus", "expected"),
    [
        (10.0, 10.0, 0.0, 1, 1, 1.0),
        (5.0, 10.0, 0.0, 1, 1, 0.5),
        (10.0, 10.0, 2.0, 1, 1, 0.8),  # CPU time that the hypervisor took counts as ours
        (8.0, 8.0, 2.0, 1, 1, 0.8),
        (20.0, 20.0, 0.0, 2, 2, 1.0),
        (12.0, 12.0, 0.0, 2, 2, 1.0),  # threads that idle take nothing from each other
        (12.0, 17.0, 0.0, 2, 2, 0.75),
        (12.0, 17.0, 0.0, 2, 4, None),  # not pinned: whose the other CPUs are is not known
        (6.0, None, None, 1, 1, 0.6),
    ],
)
def test_the_share_is_what_others_left(
    own_s: float, busy_s: float | None, stolen_s: float | None, threads: int, cpus: int,
    expected: float | None,
) -> None:  # fmt: skip
    before = _Moment(0.0, 0.0, None if busy_s is None else 0.0, None if stolen_s is None else 0.0)
    after = _Moment(10.0, own_s, busy_s, stolen_s)
    assert _share(before, after, threads, cpus) == (
        expected if expected is None else pytest.approx(expected)
    )


@pytest.fixture
def busy_neighbour() -> Iterator[None]:
    """Another process on every CPU that this one may use."""
    busy = [
        subprocess.Popen(
            [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{cpu}}})\nwhile 1: pass"]
        )
        for cpu in os.sched_getaffinity(0)
    ]
    yield
    for process in busy:
        process.kill()
        process.wait()


@needs_linux
@pytest.mark.usefixtures("busy_neighbour")
def test_a_benchmark_beside_a_busy_process_says_so_first(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(segmenter((1, 3, 256, 256)))
    arguments = ["bench", str(tmp_path / "a.onnx"), "--cpu", "--passes", "2"]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("disturbed: other processes took ")
    found = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert found["is_disturbed"] and found["cpu_share"] < LEAST_CPU_SHARE
    assert found["ci_low_ms"] is None  # how fast it is without the others is not known


def scripted(monkeypatch: pytest.MonkeyPatch, shares: list[float | None]) -> None:
    """The shares of one block after the other; the last one from then on."""
    left = list(shares)
    monkeypatch.setattr(cpu_share, "_share", lambda *_: left.pop(0) if len(left) > 1 else left[0])


def test_a_gpu_has_no_share() -> None:
    engine = FakeEngine()
    engine.device = Device("cuda:0", "A GPU")
    with watching_cpu(engine) as share:
        pass
    assert share.value is None and not share.is_disturbed


SPECS = tuple(OpSpec("conv", (8, 16, 16), 8 * n) for n in range(1, 5))


def swept(
    path: Path, passes: int = 3, listener: Callable[[Progress], None] = lambda _: None
) -> LatencyTable:
    engine = FakeEngine()
    engine.device = Device("cpu", engine.device.model)
    table = LatencyTable.create(path, identity_of(engine, "cpu", statistic="p10"))
    timing = TimingSettings(min_samples=5, max_samples=20, min_time_s=0.0, time_cap_s=0.01)
    settings = SweepSettings(timing, passes=passes, group=4)
    summary = Sweep(table, Plan("p", SPECS), engine, settings, listener=listener).run()
    table.summary = summary  # type: ignore[attr-defined]
    return table


def test_entries_of_disturbed_passes_are_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.5])
    with swept(tmp_path / "busy.db") as table:
        assert all("machine disturbed" in entry.warnings for entry in table)
        assert {row["cpu_share"] for row in table.rows("SELECT cpu_share FROM latencies")} == {0.5}
        assert table.summary.disturbed == 3 * len(SPECS)  # type: ignore[attr-defined]
    words = ["estimate", "--table", str(tmp_path / "busy.db"), "--op", SPECS[0].key]
    assert CliRunner().invoke(main, words).stdout.startswith("disturbed: entries of 100% of")
    scripted(monkeypatch, [1.0])
    with swept(tmp_path / "quiet.db") as table:
        assert not any("disturbed" in entry.warnings for entry in table)


def test_one_disturbance_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.5, 1.0])
    with swept(tmp_path / "a.db") as table:
        assert table.summary.requeued == len(SPECS)  # type: ignore[attr-defined]
        assert not any("disturbed" in entry.warnings for entry in table)


def test_a_busy_machine_is_remarked_on_once_while_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(monkeypatch, [1.0, 0.97, 0.6, 0.5])
    with (
        progress_bar("profile", is_quiet=False) as listener,
        swept(tmp_path / "a.db", listener=listener),
    ):
        pass
    said = capsys.readouterr().err
    assert said.count("disturbed: other processes took") == 1
    assert "took 40% of the CPU" in said or "took 50% of the CPU" in said


def test_validations_keep_the_share_of_their_worse_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [1.0])
    with swept(tmp_path / "a.db") as table:
        engine = FakeEngine()
        engine.device = Device("cpu", engine.device.model)
        timing = TimingSettings(min_samples=5, max_samples=20, min_time_s=0.0, time_cap_s=0.01)
        work = [Workload.from_spec(spec) for spec in SPECS]
        scripted(monkeypatch, [1.0, 0.98, 0.9, 0.8, 1.0])  # two groups in each of two passes
        readings = NetworkTimer(engine, timing, {}, group=2).passes(work, 1, 0)
        assert readings.cpu_share == pytest.approx(0.85)
        validations.store(
            table, [], seed=0, sampler="s", settings="{}", environment="{}",
            agreement=json.dumps({"r": 0.9, "r12": 0.99}), cpu_share=readings.cpu_share,
        )  # fmt: skip
        validations.store(
            table, [], seed=0, sampler="s", settings="{}", environment="{}",
            agreement=json.dumps({"r": 0.9, "r12": 0.5}), cpu_share=None,
        )  # fmt: skip
        rows = table.rows("SELECT cpu_share, r12, is_disturbed FROM validation_log")
    assert [tuple(row.values()) for row in rows] == [(0.85, 0.99, 1), (None, 0.5, 1)]


def test_waiting_for_a_device_says_who_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    engine = FakeEngine()
    held = device_lock(engine.device.name)
    held.__enter__()

    def sleep(_: float) -> None:
        held.__exit__(None, None, None)  # the other one is done

    monkeypatch.setattr(waiting.time, "sleep", sleep)
    monkeypatch.setattr("latlut.measure.held_device.wait_until_quiet", lambda *_: None)
    with measuring_on(engine, waiting=said.append):
        assert len(said) == 1 and said[0].startswith("waiting for the device: ")
        with pytest.raises(DeviceBusyError), measuring_on(engine):
            pass


def test_waiting_for_a_quiet_machine_takes_quiet_seconds_in_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    looks = iter([0.9, 0.01, 0.5, 0.0, 0.0, 0.0])
    now = {"clock": 0.0, "busy": 0.0}

    def sleep(seconds: float) -> None:
        now["clock"] += seconds
        now["busy"] += next(looks) * seconds

    monkeypatch.setattr(waiting.time, "sleep", sleep)
    monkeypatch.setattr(waiting.time, "perf_counter", lambda: now["clock"])
    monkeypatch.setattr(waiting, "cpu_times", lambda cpus: (now["busy"], 0.0))
    waiting.wait_until_quiet([0], said.append)
    assert next(looks, None) is None
    assert said == ["waiting for a quiet machine: other processes use 90% of CPU 0"]


def test_a_quiet_benchmark_has_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.97, 0.99])
    timing = TimingSettings(min_samples=3, max_samples=20, min_time_s=0.0, time_cap_s=0.01)
    found = bench_onnx(
        engine_class("onnxruntime")(), segmenter(), settings=BenchSettings(2, timing)
    )
    assert found.cpu_share == 0.97 and not found.to_dict()["is_disturbed"]
