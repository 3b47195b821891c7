"""A sweep in parts: disjoint, in processes of their own, into one table."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import part_workers
import pytest
from click.testing import CliRunner
from fake_engine import OPS, FakeEngine, TacticsEngine

from latlut.cli import main
from latlut.engines.onnxruntime import OnnxRuntimeEngine
from latlut.errors import EngineError, SpecError, TargetError
from latlut.machine.gpus import DetectedGpu, choose_gpus
from latlut.machine.lock import device_lock
from latlut.measure.many_devices import DeviceJob, sweep_on_devices
from latlut.measure.parts import Part, run_parts
from latlut.measure.plans import Plan, plan_from_ops
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_report import SweepSummary, TotalProgress, joined
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.opspec import OpSpec
from latlut.progress import Progress
from latlut.table.history import failures, measurement_count
from latlut.table.summary import Roofline
from latlut.table.table import LatencyTable
from latlut.validation.verdict import check


def _unheard(progress: Progress) -> None:
    """A listener that does nothing."""


def _nobody(index: int, report: object) -> None:
    """A listener that does nothing."""


# ---- which part measures what --------------------------------------------------------------


@pytest.mark.parametrize(("count", "rebuilds"), [(1, 1), (2, 1), (3, 1), (2, 2), (4, 2), (3, 3)])
def test_parts_are_disjoint_and_take_turns(count: int, rebuilds: int) -> None:
    parts = [Part(index, count) for index in range(count)]
    owners: dict[int, list[int]] = {}
    for position in range(12):
        for index in range(count * rebuilds):
            (owner,) = [part.index for part in parts if part.owns(position, index, rebuilds)]
            owners.setdefault(position, []).append(owner)
    for owner_by_pass in owners.values():
        for build in range(rebuilds):  # every build is measured on every device in turn
            assert sorted(owner_by_pass[build::rebuilds]) == list(range(count))
    with pytest.raises(SpecError, match="part 2 of 2"):
        Part(2, 2)


def test_a_part_measures_its_share_and_another_part_goes_on(db_path: Path, plan: Plan) -> None:
    total = 0
    for index in (0, 1):
        engine = FakeEngine()
        with LatencyTable.create(db_path, identity_of(engine, "cpu", statistic="p10")) as table:
            engine.device = replace(engine.device, uuid=f"FAKE-{index}")
            summary = Sweep(table, plan, engine, SweepSettings(), part=Part(index, 2)).run()
            assert summary.status == "done"
            total += summary.measured
    assert total == 25
    with LatencyTable.open(db_path) as table:
        rows = table.rows(
            "SELECT op_spec, count(*) AS n, count(DISTINCT device) AS devices FROM readings"
            " GROUP BY op_spec"
        )
        assert [(row["n"], row["devices"]) for row in rows] == [(5, 2)] * 5
        again = table.rows("SELECT count(*) AS n FROM readings GROUP BY op_spec, pass_index")
        assert {row["n"] for row in again} == {1}


def test_a_slower_device_of_the_same_model_is_brought_to_the_common_level(db_path: Path) -> None:
    plan = plan_from_ops([f"conv 8->8 at 16x{width}" for width in range(8, 32)])
    for index in (0, 1):
        engine = FakeEngine(seed=index)
        slowness = 1.04 if index else 1.0
        engine.speed = partial(lambda slow, runs: slow, slowness)
        with LatencyTable.create(db_path, identity_of(engine, "cpu", statistic="p10")) as table:
            engine.device = replace(engine.device, uuid=f"FAKE-{index}")
            Sweep(table, plan, engine, SweepSettings(passes=6), part=Part(index, 2)).run()
    with LatencyTable.open(db_path) as table:
        factors = table.rows(
            "SELECT device, avg(speed_factor) AS factor FROM passes GROUP BY device"
        )
        assert factors[1]["factor"] / factors[0]["factor"] == pytest.approx(1.04, abs=0.01)
        assert table.shared_error > 0.005
        assert max(entry.own_error for entry in table) < 0.01  # not widened by the devices


# ---- processes -----------------------------------------------------------------------------


def test_two_processes_fill_one_table(db_path: Path) -> None:
    progress: list[tuple[int, Progress]] = []
    with LatencyTable.create(db_path, identity_of(OnnxRuntimeEngine(), "cpu", statistic="p10")):
        results = run_parts(
            ["first", "second"],
            partial(part_workers.measure_on_a_cpu, db_path, 2),
            lambda index, report: progress.append((index, report)),
        )
    assert [result.error for result in results] == ["", ""]
    assert sum(result.value.measured for result in results) == 4 * len(part_workers.OPS)
    assert {index for index, _ in progress} == {0, 1}
    assert len(progress) == 4 * len(part_workers.OPS)
    with LatencyTable.open(db_path) as table:
        assert len(table) == len(part_workers.OPS)
        assert {entry.passes for entry in table} == {4}
        runs = table.rows("SELECT status, settings FROM runs")
        assert [run["status"] for run in runs] == ["done", "done"]
        assert sorted(json.loads(run["settings"])["part"] for run in runs) == [[0, 2], [1, 2]]
        assert table.rows("PRAGMA foreign_key_check") == []
        assert table.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        sentinels = table.rows("SELECT count(DISTINCT op_spec_id) AS n FROM sentinel_readings")
        assert sentinels == [{"n": 3}]  # the same for both


def test_a_part_that_fails_is_named_and_the_other_goes_on(db_path: Path) -> None:
    results = run_parts(
        ["first", "second"], partial(part_workers.fail_in_the_second, db_path, 2), _nobody
    )
    assert results[0].value.status == "done"
    assert results[1].name == "second"
    assert results[1].error == "no kernel image is available for this device"
    measured = results[0].value.measured
    rest = run_parts(["one"], partial(part_workers.measure_on_a_cpu, db_path, 1), _nobody)
    assert rest[0].value.measured == 4 * len(part_workers.OPS) - measured
    with LatencyTable.open(db_path) as table:
        assert {entry.passes for entry in table} == {4}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are watched on Linux")
@pytest.mark.parametrize("hangs", [False, pytest.param(True, marks=pytest.mark.long)])
def test_an_op_spec_that_ends_or_blocks_its_process_is_failed_by_name(
    db_path: Path, hangs: bool
) -> None:
    said: list[str] = []
    with LatencyTable.create(db_path, identity_of(FakeEngine(), "cpu", statistic="p10")):
        results = run_parts(
            ["first", "second"],
            partial(part_workers.measure_what_kills, db_path, hangs),
            _nobody,
            timeout_s=60.0 if hangs else None,
            say=said.append,
        )
    assert [result.error for result in results] == ["", ""]
    assert [result.value.status for result in results] == ["done", "done"]
    aborts, other = (OpSpec.parse(text).key for text in part_workers.OPS[:2])
    died = "the process that measured it was ended by "
    reason = "timed out after 60 s (--timeout)" if hangs else f"{died}exit(0)"
    assert sorted(said) == [
        f"first: {aborts}: {died}SIGABRT; going on without it",
        f"second: {other}: {reason}; going on without it",
    ]
    with LatencyTable.open(db_path) as table:
        failed = failures(table)
        assert failed == {aborts: f"{died}SIGABRT", other: reason}
        assert measurement_count(table) == len(table) == len(part_workers.OPS) - 2
        statuses = [row["status"] for row in table.rows("SELECT status FROM runs")]
        assert sorted(statuses) == ["done", "done", "killed", "killed"]
    assert {key for result in results for key in result.value.failed} == {aborts, other}


def test_defects_and_crashes_are_told_apart_from_values() -> None:
    heard: list[str] = []
    results = run_parts(
        ["a", "b", "c"], part_workers.end_in_some_way, lambda index, text: heard.append(text)
    )
    assert results[0].value == 0
    assert results[0].error == ""
    assert "ZeroDivisionError: a defect" in results[1].error
    assert "part_workers.py" in results[1].error  # its traceback
    assert "SIGKILL" in results[2].error
    assert sorted(heard) == ["hello from 0", "hello from 1", "hello from 2"]


@pytest.mark.parametrize("reaches_all", [True, False], ids=["terminal", "kill -INT parent"])
def test_ctrl_c_stops_all_parts_and_what_they_measured_stays(
    db_path: Path, reaches_all: bool
) -> None:
    process = subprocess.Popen(
        [sys.executable, str(Path(part_workers.__file__)), str(db_path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    started = {process.stdout.readline() for _ in range(2)}
    assert started == {"part 0 measures\n", "part 1 measures\n"}
    if reaches_all:
        import os

        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert output == "stopped\n"
    with LatencyTable.open(db_path) as table:
        assert table.rows("SELECT DISTINCT status FROM runs") == [{"status": "stopped"}]
        before = table.rows("SELECT count(*) AS n FROM measurements")[0]["n"]
        assert before >= 2
        assert any("'stopped'" in reason.text for reason in check(table).reasons)
    engine = FakeEngine()
    with LatencyTable.open(db_path, is_writable=True) as table:
        plan = plan_from_ops(part_workers.OPS)
        again = Sweep(table, plan, engine, SweepSettings(passes=1), part=Part(0, 1)).run()
    assert again.reused >= 2


# ---- the command ---------------------------------------------------------------------------


def gpu(index: int, name: str = "NVIDIA H200", driver: str = "580.1") -> DetectedGpu:
    return DetectedGpu(index, name, f"GPU-{index}", driver, 2**30, "h200")


def test_gpus_are_chosen_by_number() -> None:
    here = [gpu(0), gpu(1), gpu(2)]
    assert [found.index for found in choose_gpus("h200", (2, 0), here)] == [2, 0]
    with pytest.raises(TargetError, match=r"no GPU has the number 7; GPUs found: 0 \(NVIDIA H200"):
        choose_gpus("h200", (0, 7), here)
    with pytest.raises(TargetError, match="twice"):
        choose_gpus("h200", (1, 1), here)


def test_mixed_models_and_drivers_are_refused_by_name() -> None:
    mixed = [gpu(0), gpu(1, name="NVIDIA H100 80GB HBM3")]
    with pytest.raises(TargetError, match=r"NVIDIA H100 80GB HBM3 .*NVIDIA H200"):
        choose_gpus("h200", (0, 1), mixed)
    other_driver = [gpu(0), gpu(1, driver="570.2")]
    with pytest.raises(TargetError, match=r"driver 570\.2.*driver 580\.1"):
        choose_gpus("h200", (0, 1), other_driver)


def _job(path: Path, devices: list[str], plan: Plan) -> DeviceJob:
    """A job of ONNX Runtime; the names of its devices are what the engine is asked for."""
    engine = OnnxRuntimeEngine()
    return DeviceJob(
        tuple(replace(gpu(index), uuid=name) for index, name in enumerate(devices)),
        "onnxruntime",
        dict(engine.options),
        path,
        identity_of(engine, "cpu", statistic="p10"),
        plan,
        SweepSettings(timing=part_workers.QUICK, passes=2),
        Roofline(),
        (),
        "a sweep",
    )


def test_the_command_s_process_measures_its_part_and_names_what_fails(
    db_path: Path, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    """One part on the CPU; the other is asked for a device that is not there."""
    job = _job(db_path, ["cpu", "GPU-which-is-not-here"], plan)
    with LatencyTable.create(db_path, job.identity) as table:
        summary, errors = sweep_on_devices(table, job, _unheard)
        assert summary.status == "failed"
        assert summary.measured == 5
        (error,) = errors
        assert "part 2 of 2 on GPU 1 (NVIDIA H200, GPU-which-is-not-here) failed" in error
        assert capsys.readouterr() == ("", "")  # printing is the command's
        assert len(table) == 5
        whole = _job(db_path, ["cpu"], plan)
        summary, errors = sweep_on_devices(table, whole, _unheard)
        assert (summary.status, summary.measured, summary.reused, errors) == ("done", 5, 5, [])
        assert {entry.passes for entry in table} == {2}


def test_each_process_takes_its_device_s_lock(db_path: Path, plan: Plan) -> None:
    job = _job(db_path, ["cpu"], plan)
    with LatencyTable.create(db_path, job.identity) as table, device_lock("cpu"):
        summary, (error,) = sweep_on_devices(table, job, _unheard)
        assert "cpu is busy" in error
        assert summary.measured == 0
        assert len(table) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--devices", "0,1"], "name the model with --gpu"),
        (["--gpu", "h200", "--devices", "0;1"], "no list of GPUs"),
        (["--cpu", "--rebuilds", "3"], "builds the same each time"),
    ],
)
def test_what_the_command_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["profile", "--op", OPS[0], *arguments])
    assert result.exit_code == 2
    assert words in result.output
    assert list(tmp_path.rglob("*.db")) == []


# ---- joining -------------------------------------------------------------------------------


def test_progress_and_summaries_of_parts_add_up() -> None:
    heard: list[Progress] = []
    total = TotalProgress([10, 6], heard.append)
    total(0, Progress(3, 10, 0, "a", None))
    total(1, Progress(2, 6, 0, "b", None))
    total(1, Progress(1, 4, 0, "b", None))  # in another process, which has 4 left
    assert [(item.done, item.total) for item in heard] == [(3, 16), (5, 16), (6, 16)]
    first = SweepSummary("done", 3, 1, 0, {"a": "x"}, {"total": 10.0, "timing": 8.0})
    second = SweepSummary("out of budget", 2, 0, 1, {"b": "y"}, {"total": 20.0})
    both = joined([first, second])
    assert (both.status, both.measured, both.reused, both.requeued) == ("out of budget", 5, 1, 1)
    assert both.failed == {"a": "x", "b": "y"}
    assert both.seconds == {"total": 15.0, "timing": 4.0}
    assert joined([]).seconds == {"total": 0.0}


def test_builds_and_devices_go_together(db_path: Path, plan: Plan) -> None:
    for index in (0, 1):
        engine = TacticsEngine()
        with LatencyTable.create(db_path, identity_of(engine, "cpu", statistic="p10")) as table:
            engine.device = replace(engine.device, uuid=f"FAKE-{index}")
            settings = SweepSettings(passes=4, rebuilds=2)
            Sweep(table, plan, engine, settings, part=Part(index, 2)).run()
    with LatencyTable.open(db_path) as table:
        pairs = table.rows(
            "SELECT op_spec, count(DISTINCT build_index || '/' || device) AS pairs, count(*) AS n"
            " FROM readings GROUP BY op_spec"
        )
        assert [(row["pairs"], row["n"]) for row in pairs] == [(4, 4)] * 5
    with pytest.raises(EngineError):
        OnnxRuntimeEngine(device="GPU-which-is-not-here")
