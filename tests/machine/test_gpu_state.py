"""The GPU's state: read, never set; throttled groups are measured again; what remains is said."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_engine import FakeEngine, FakeSession

from latlut.engines.resolution import Resolution
from latlut.errors import DeviceLostError
from latlut.machine.gpu_state import (
    PROCESS_CALLS,
    GpuMonitor,
    GpuState,
    advice,
    merge_states,
    other_processes,
    power_mode,
    reason_names,
)
from latlut.machine.nvml import first_answer, nvml_errors
from latlut.measure.plans import Plan, plan_from_ops
from latlut.measure.sweep import MAX_REQUEUES, Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.table.entry import Entry
from latlut.table.table import LatencyTable
from latlut.validation.verdict import check

UUID = "GPU-0a"


# ---- the driver's library, scripted ---------------------------------------------------------


class ScriptedNvml(SimpleNamespace):
    """The part of pynvml that the monitor uses, with answers by function; others are refused."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    NVML_ERROR_GPU_IS_LOST = 15

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            super().__init__(f"error {value}")
            self.value = value

    class NVMLLibraryMismatchError(Exception):
        pass

    def __init__(self, answers: dict[str, object]) -> None:
        super().__init__(answers=answers, asked=[])

    def __getattr__(self, name: str) -> Callable[..., object]:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def function(*arguments: object) -> object:
            self.asked.append(name)
            if name in ("nvmlInit", "nvmlShutdown"):
                return None
            key = name if arguments[1:] == () else f"{name} {arguments[1]}"
            answer = self.answers.get(key, ScriptedNvml.NVMLError(3))
            if isinstance(answer, Exception):
                raise answer
            return answer

        return function


def process(pid: int) -> SimpleNamespace:
    return SimpleNamespace(pid=pid)


FULL = {
    "nvmlDeviceGetHandleByUUID": "handle",
    "nvmlDeviceGetClockInfo 1": 1980,
    "nvmlDeviceGetClockInfo 2": 2619,
    "nvmlDeviceGetTemperature 0": 61,
    "nvmlDeviceGetPowerUsage": 412_500,
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x4 | 0x20,
    "nvmlDeviceGetComputeRunningProcesses": [process(os.getpid()), process(4242)],
    "nvmlDeviceGetGraphicsRunningProcesses": [process(17)],
    "nvmlDeviceGetPerformanceState": 0,
    "nvmlDeviceGetPersistenceMode": 0,
    "nvmlDeviceGetArchitecture": 9,
    "nvmlDeviceGetMaxClockInfo 1": 1980,
    "nvmlDeviceGetMaxClockInfo 2": 2619,
    "nvmlDeviceGetDefaultApplicationsClock 1": 1755,
}


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> ScriptedNvml:
    script = ScriptedNvml(dict(FULL))
    monkeypatch.setitem(sys.modules, "pynvml", script)
    return script


def test_a_snapshot_is_what_the_driver_says(nvml: ScriptedNvml) -> None:
    with GpuMonitor(UUID) as monitor:
        state = monitor.snapshot()
    assert (state.sm_mhz, state.memory_mhz, state.temperature_c) == (1980, 2619, 61)
    assert (state.power_w, state.power_limit_w) == (412.5, 700.0)
    assert state.throttle_reasons == ("sw power cap", "sw thermal slowdown")
    assert state.disturbances == ("sw thermal slowdown",)
    assert state.other_processes == (17, 4242)
    assert state.is_persistent is False
    assert state.default_memory_mhz is None  # the script refuses it


def test_nothing_is_ever_set(nvml: ScriptedNvml) -> None:
    with GpuMonitor(UUID) as monitor:
        advice(monitor.snapshot())
    assert nvml.asked[0] == "nvmlInit"
    assert nvml.asked[-1] == "nvmlShutdown"
    assert all(name.startswith("nvmlDeviceGet") for name in nvml.asked[1:-1])


def test_what_the_driver_does_not_answer_is_none(nvml: ScriptedNvml) -> None:
    nvml.answers.clear()
    nvml.answers["nvmlDeviceGetHandleByUUID"] = "handle"
    with GpuMonitor(UUID) as monitor:
        assert monitor.snapshot() == GpuState(uuid=UUID)
        assert monitor.reason == ""


def test_older_drivers_name_reasons_differently(nvml: ScriptedNvml) -> None:
    del nvml.answers["nvmlDeviceGetCurrentClocksEventReasons"]
    nvml.answers["nvmlDeviceGetCurrentClocksThrottleReasons"] = 0x8
    with GpuMonitor(UUID) as monitor:
        assert monitor.snapshot().throttle_reasons == ("hw slowdown",)


MISMATCH = ScriptedNvml.NVMLLibraryMismatchError("use a versioned function")


@pytest.mark.parametrize("missing", [MISMATCH, ScriptedNvml.NVMLError(13)])
def test_a_driver_without_the_newest_call_is_asked_the_older_one(
    nvml: ScriptedNvml, missing: Exception
) -> None:
    for kind in ("Compute", "Graphics"):
        name = f"nvmlDeviceGet{kind}RunningProcesses"
        nvml.answers[f"{name}_v2"], nvml.answers[name] = nvml.answers[name], missing
    with GpuMonitor(UUID) as monitor:
        assert monitor.snapshot().other_processes == (17, 4242)


def test_no_call_that_the_driver_lacks_is_more_than_unknown(nvml: ScriptedNvml) -> None:
    nvml.answers = dict.fromkeys(nvml.answers, MISMATCH)
    nvml.answers["nvmlDeviceGetHandleByUUID"] = "handle"
    with GpuMonitor(UUID) as monitor:
        assert monitor.snapshot() == GpuState(uuid=UUID)
    nvml.answers["nvmlDeviceGetHandleByUUID"] = MISMATCH
    with GpuMonitor(UUID) as monitor:
        assert "does not know" in monitor.reason


def test_the_real_binding_asks_an_older_driver_the_older_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pynvml = pytest.importorskip("pynvml")

    def library(name: str) -> Callable[..., int]:
        if name.endswith("_v3"):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return lambda *arguments: pynvml.NVML_SUCCESS  # a size of 0: no process

    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer", library)
    assert issubclass(pynvml.NVMLLibraryMismatchError, nvml_errors(pynvml))
    for names in PROCESS_CALLS:
        with pytest.raises(nvml_errors(pynvml)):
            getattr(pynvml, names[0])("handle")
        assert first_answer(pynvml, names, "handle") == []


def test_a_gpu_that_has_gone_is_an_error(nvml: ScriptedNvml) -> None:
    with GpuMonitor(UUID) as monitor:
        nvml.answers["nvmlDeviceGetClockInfo 1"] = ScriptedNvml.NVMLError(15)
        with pytest.raises(DeviceLostError, match=UUID):
            monitor.snapshot()


def test_without_the_library_or_the_gpu_a_monitor_says_why(
    nvml: ScriptedNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    del nvml.answers["nvmlDeviceGetHandleByUUID"]
    with GpuMonitor("GPU-unknown") as monitor:
        assert "does not know" in monitor.reason
        assert monitor.snapshot() == GpuState(uuid="GPU-unknown")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monitor = GpuMonitor(UUID)
    assert "nvidia-ml-py" in monitor.reason
    monitor.close()


def test_the_real_library_agrees_on_the_reasons() -> None:
    pynvml = pytest.importorskip("pynvml")
    for name, bit in (
        ("sw power cap", pynvml.nvmlClocksEventReasonSwPowerCap),
        ("hw thermal slowdown", pynvml.nvmlClocksEventReasonHwThermalSlowdown),
        ("hw power brake slowdown", pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown),
        ("sync boost", pynvml.nvmlClocksEventReasonSyncBoost),
        ("gpu idle", pynvml.nvmlClocksEventReasonGpuIdle),
    ):
        assert reason_names(bit) == (name,)
    assert reason_names(0) == ()
    assert reason_names(0x1000) == ("reason 0x1000",)


def test_processes_of_others() -> None:
    def everything(pid: int) -> bool:
        return True

    def nothing(pid: int) -> bool:
        return False

    assert other_processes({7, 9}, {7}, everything) == (9,)
    assert other_processes(set(), {7}, everything) == ()
    assert other_processes({5, 9}, {7}, everything) == (5, 9)
    # In a container the numbers are the host's: one of them is probably this process.
    assert other_processes({1005}, {7}, nothing) is None
    assert other_processes({1005, 1009}, {7}, nothing) == (1005, 1009)


def test_several_states_as_one() -> None:
    cool = GpuState(sm_mhz=1900, temperature_c=50, throttle_reasons=(), uuid=UUID)
    hot = GpuState(sm_mhz=1500, temperature_c=88, throttle_reasons=("hw slowdown",), uuid=UUID)
    merged = merge_states([cool, hot, cool])
    assert merged is not None
    assert (merged.sm_mhz, merged.temperature_c) == (1500, 88)
    assert merged.throttle_reasons == ("hw slowdown",)
    assert merged.other_processes is None
    assert merge_states([]) is None


def test_advice_names_the_commands(nvml: ScriptedNvml) -> None:
    with GpuMonitor(UUID) as monitor:
        state = monitor.snapshot()
    assert advice(state) == [
        f"sudo nvidia-smi -i {UUID} -pm 1",
        f"sudo nvidia-smi -i {UUID} -lgc 1755,1755",
        f"sudo nvidia-smi -i {UUID} -rgc",
    ]
    pascal = replace(state, has_clock_lock=False, is_persistent=True, default_sm_mhz=None)
    assert advice(pascal) == [
        f"sudo nvidia-smi -i {UUID} -ac 2619,1485",
        f"sudo nvidia-smi -i {UUID} -rac",
    ]
    assert advice(GpuState(uuid=UUID)) == []
    assert advice(GpuState()) == []


def test_a_jetson_says_its_power_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvpmodel"
    program.write_text("#!/bin/sh\necho 'NV Power Mode: MAXN'\necho 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    assert power_mode() == "MAXN"
    program.write_text("#!/bin/sh\nexit 1\n")
    assert power_mode() == ""


# ---- a sweep with a monitor ----------------------------------------------------------------


class ScriptedMonitor:
    """States by a script: what ``state(calls so far)`` gives."""

    def __init__(self, state: Callable[[int], GpuState]) -> None:
        self.state, self.calls = state, 0

    def snapshot(self) -> GpuState:
        self.calls += 1
        return self.state(self.calls)

    def sm_mhz(self) -> int | None:
        return 1900


SLOW = ("hw slowdown",)


@pytest.mark.parametrize(
    ("reasons", "disturbances"),
    [
        ([SLOW], ()),
        ([SLOW, (), SLOW], ()),
        ([(), SLOW, SLOW, ()], SLOW),
        ([SLOW, SLOW], SLOW),
        ([("hw slowdown", "hw thermal slowdown"), ()], ("hw thermal slowdown",)),
        ([("hw power brake slowdown",)], ("hw power brake slowdown",)),
        ([("sw thermal slowdown",), ()], ("sw thermal slowdown",)),
    ],
)
def test_a_slowdown_bit_counts_from_two_readings_in_a_row_on(
    reasons: list[tuple[str, ...]], disturbances: tuple[str, ...]
) -> None:
    merged = merge_states([GpuState(throttle_reasons=item) for item in reasons])
    assert merged is not None
    assert merged.disturbances == disturbances
    again = merge_states([merged, GpuState(throttle_reasons=())])
    assert again is not None
    assert again.disturbances == disturbances
    assert GpuState(throttle_reasons=SLOW).disturbances == ()


def test_the_clock_alone_is_one_question(nvml: ScriptedNvml) -> None:
    with GpuMonitor(UUID) as monitor:
        assert monitor.sm_mhz() == 1980
        assert nvml.asked[-1] == "nvmlDeviceGetClockInfo"
        nvml.answers["nvmlDeviceGetClockInfo 1"] = ScriptedNvml.NVMLError(3)
        assert monitor.sm_mhz() is None
        nvml.answers["nvmlDeviceGetClockInfo 1"] = ScriptedNvml.NVMLError(15)
        with pytest.raises(DeviceLostError):
            monitor.sm_mhz()


CALM = GpuState(sm_mhz=1900, throttle_reasons=("sw power cap",), other_processes=(), uuid=UUID)
HOT = replace(CALM, throttle_reasons=("hw thermal slowdown",), sm_mhz=1200)


def _sweep(path: Path, plan: Plan, engine: FakeEngine, monitor: ScriptedMonitor, **more) -> Sweep:
    engine.device = replace(engine.device, uuid=UUID)
    table = LatencyTable.create(path, identity_of(engine, "cpu", statistic="p10"))
    settings = more.pop("settings", SweepSettings(group=2))
    return Sweep(table, plan, engine, settings, monitor=monitor, **more)


def test_states_are_stored_before_beside_and_after(
    db_path: Path, plan: Plan, engine: FakeEngine
) -> None:
    sweep = _sweep(db_path, plan, engine, ScriptedMonitor(lambda calls: CALM))
    sweep.run()
    rows = sweep.table.rows("SELECT * FROM gpu_log")
    assert [rows[0]["phase"], rows[-1]["phase"]] == ["before", "after"]
    groups = [row for row in rows if row["phase"] == "group"]
    assert len(groups) == 5 * 3  # five passes, five op specs in groups of two
    assert {(row["device"], row["sm_mhz"]) for row in rows} == {(UUID, 1900)}
    beside = sweep.table.rows(
        "SELECT count(*) AS n FROM measurements JOIN gpu_states USING (pass_id, group_index)"
    )
    assert beside == [{"n": 25}]
    assert sweep.table.rows("SELECT DISTINCT device FROM passes") == [{"device": UUID}]
    assert all(entry.warnings == "" for entry in sweep.table)  # a power cap is how it runs
    assert sweep.summary.requeued == 0
    assert any("power limit" in text for text in check(sweep.table).remarks)


def test_a_throttled_group_is_measured_again(db_path: Path, plan: Plan, engine: FakeEngine) -> None:
    monitor = ScriptedMonitor(lambda calls: HOT if calls == 5 else CALM)
    sweep = _sweep(db_path, plan, engine, monitor)
    summary = sweep.run()
    assert summary.requeued == 2
    assert all(entry.warnings == "" and entry.passes == 5 for entry in sweep.table)
    hot = sweep.table.rows("SELECT sm_mhz, throttle_reasons FROM gpu_log WHERE is_disturbed")
    assert [row["sm_mhz"] for row in hot] == [1200]
    assert json.loads(hot[0]["throttle_reasons"])[-1] == "hw thermal slowdown"


def test_what_is_always_throttled_is_kept_with_a_warning(
    db_path: Path, plan: Plan, engine: FakeEngine
) -> None:
    sweep = _sweep(db_path, plan, engine, ScriptedMonitor(lambda calls: HOT))
    summary = sweep.run()
    assert summary.requeued == 25 * MAX_REQUEUES
    assert all("throttled" in entry.warnings for entry in sweep.table)
    assert not check(sweep.table).is_reliable


def test_groups_are_numbered_without_sentinels_too(
    db_path: Path, plan: Plan, engine: FakeEngine
) -> None:
    monitor = ScriptedMonitor(lambda calls: HOT if calls == 5 else CALM)
    settings = SweepSettings(group=2, sentinels=0, passes=1)
    sweep = _sweep(db_path, plan, engine, monitor, settings=settings)
    assert sweep.run().requeued == 2
    assert all("throttled" not in entry.warnings for entry in sweep.table)


def test_other_processes_are_a_warning_but_no_verdict(
    db_path: Path, plan: Plan, engine: FakeEngine
) -> None:
    crowded = replace(CALM, other_processes=(4242,))
    sweep = _sweep(db_path, plan, engine, ScriptedMonitor(lambda calls: crowded))
    sweep.run()
    assert all("other processes on the GPU" in entry.warnings for entry in sweep.table)
    verdict = check(sweep.table)
    assert verdict.is_reliable
    assert any("5 of 5 entries were measured with other processes" in t for t in verdict.remarks)


def test_a_gpu_that_goes_away_ends_the_sweep_and_nothing_is_lost(
    db_path: Path, engine: FakeEngine
) -> None:
    plan = plan_from_ops([f"conv 8->8 at 16x{width}" for width in range(8, 14)])

    def state(calls: int) -> GpuState:
        if calls > 40:
            raise DeviceLostError(f"the GPU {UUID} has gone")
        return CALM

    sweep = _sweep(db_path, plan, engine, ScriptedMonitor(state))
    with pytest.raises(DeviceLostError, match=r"has gone(?s:.*)new measurements are in"):
        sweep.run()
    assert sweep.summary.measured > 0
    stored = sweep.table.rows("SELECT count(*) AS n FROM measurements")[0]["n"]
    assert stored == sweep.summary.measured
    assert sweep.table.rows("SELECT status FROM runs") == [{"status": "failed"}]
    assert sweep.table.rows("SELECT * FROM failed") == []
    assert engine.closed == len(engine.opened)
    sweep.table.close()
    again = _sweep(db_path, plan, engine, ScriptedMonitor(lambda calls: CALM)).run()
    assert (again.reused, again.measured) == (stored, 30 - stored)


def test_a_failure_of_a_lost_gpu_is_no_failure_of_the_op_spec(
    db_path: Path, plan: Plan, engine: FakeEngine
) -> None:
    def state(calls: int) -> GpuState:
        if engine.opened:
            raise DeviceLostError("the GPU has gone")
        return CALM

    def fail(workload: object, runs: int) -> None:
        raise RuntimeError("unspecified launch failure")

    engine.on_sample = fail
    settings = SweepSettings(sentinels=0)
    sweep = _sweep(db_path, plan, engine, ScriptedMonitor(state), settings=settings)
    with pytest.raises(DeviceLostError):
        sweep.run()
    assert sweep.summary.failed == {}
    assert sweep.table.rows("SELECT * FROM failed") == []


def test_entries_near_the_launch_floor_are_flagged(
    db_path: Path, plan: Plan, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "launch_floor_ms", lambda self: 0.010125)
    monkeypatch.setattr(FakeEngine, "facts", lambda self: {"clock": "scripted"})
    sweep = _sweep(db_path, plan, engine, ScriptedMonitor(lambda calls: CALM))
    sweep.run()
    for entry in sweep.table:
        assert ("near the launch floor" in entry.warnings) == (entry.latency_ms < 0.02025)
    flagged = [entry for entry in sweep.table if entry.warnings]
    assert 0 < len(flagged) < len(sweep.table)
    assert check(sweep.table).is_reliable
    environment = json.loads(sweep.table.rows("SELECT environment FROM runs")[0]["environment"])
    assert environment["engine_facts"] == {"clock": "scripted"}
    assert environment["launch_floor_ms"] == 0.010125


class LaunchingSession(FakeSession):
    """Says how it is launched, and what share of a run the host has."""

    def _open(self, module, graph) -> None:
        super()._open(module, graph)
        is_small = self.workload.name.startswith("upsample")
        self.launch = "enqueued one by one (not captured: no)" if is_small else "CUDA graph"
        self._host_shares = [0.95 if is_small else 0.1]


def test_launches_and_the_hosts_share_are_in_the_entries(
    db_path: Path, plan: Plan, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "session_type", LaunchingSession)
    sweep = _sweep(db_path, plan, engine, ScriptedMonitor(lambda calls: CALM))
    sweep.run()
    for entry in sweep.table:
        is_small = entry.key.startswith("upsample")
        assert entry.host_share == (0.95 if is_small else 0.1)
        assert (entry.launch == "CUDA graph") is not is_small
        assert ("limited by the host's launches" in entry.warnings) is is_small
    verdict = check(sweep.table)
    assert verdict.is_reliable
    remarks = "; ".join(verdict.remarks)
    assert "1 of 5 entries take the host more than 80% of their time to launch" in remarks
    assert "4 of 5 entries: CUDA graph" in remarks
    assert "1 of 5 entries: enqueued one by one (not captured: no)" in remarks
    rows = sweep.table.rows("SELECT launch, host_share FROM launches WHERE host_share > 0.8")
    assert rows == [{"launch": "enqueued one by one (not captured: no)", "host_share": 0.95}]


def test_a_clock_that_never_settles_is_said(
    db_path: Path, plan: Plan, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = ScriptedMonitor(lambda calls: CALM)
    clocks = iter(range(300, 10**9, 300))
    monkeypatch.setattr(monitor, "sm_mhz", lambda: 300 + next(clocks) % 1500)
    sweep = _sweep(db_path, plan, engine, monitor, settings=SweepSettings(passes=1))
    sweep.run()
    assert all("warm-up did not settle" in entry.warnings for entry in sweep.table)
    assert sweep.summary.seconds["warm-up"] >= 3.0


def test_the_step_of_a_clock_that_cannot_average_is_in_the_interval(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entries(name: str) -> list[Entry]:
        sweep = _sweep(tmp_path / name, plan, FakeEngine(noise=1e-3), calm)
        sweep.run()
        return list(sweep.table)

    calm = ScriptedMonitor(lambda calls: CALM)
    plain = entries("plain.db")
    monkeypatch.setattr(FakeEngine, "resolution", Resolution(5e-7, can_average=False))
    for entry, without in zip(entries("coarse.db"), plain, strict=True):
        assert entry.own_error is not None and without.own_error is not None
        step = 0.0005 / entry.latency_ms
        assert step <= entry.own_error <= 1.1 * step
        assert without.own_error < 0.2 * step


def test_without_a_gpu_nothing_is_recorded(measured: Path) -> None:
    with LatencyTable.open(measured) as table:
        assert table.rows("SELECT * FROM gpu_states") == []
        assert table.rows("SELECT DISTINCT device FROM passes") == [{"device": ""}]
        assert table.rows("SELECT * FROM launches") == []
        assert {(entry.host_share, entry.launch) for entry in table} == {(None, None)}


class LibraryMismatch(Exception):
    """As of pynvml, where it is no NVMLError."""


@pytest.mark.parametrize("has_second_version", [True, False])
def test_a_driver_without_the_newest_calls_for_processes(
    nvml: ScriptedNvml, monkeypatch: pytest.MonkeyPatch, has_second_version: bool
) -> None:
    def refuse(handle: object) -> None:
        raise LibraryMismatch("Unversioned function called")

    monkeypatch.setattr(nvml, "NVMLLibraryMismatchError", LibraryMismatch, raising=False)
    for kind in ("Compute", "Graphics"):
        name = f"nvmlDeviceGet{kind}RunningProcesses"
        monkeypatch.setattr(nvml, name, refuse, raising=False)
        second = (
            (lambda handle: [process(os.getpid()), process(4242)]) if has_second_version else refuse
        )
        monkeypatch.setattr(nvml, f"{name}_v2", second, raising=False)
    with GpuMonitor("GPU-1") as monitor:
        found = monitor.snapshot().other_processes
    assert found == ((4242,) if has_second_version else None)
