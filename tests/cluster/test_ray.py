"""A sweep by Ray actors on this machine: one is killed, one is slow, and the table is whole."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import click
import pytest
from checkout import ROOT
from click.testing import CliRunner
from fake_engine import work_ns
from onnx_models import segmenter

from latlut.cli import main
from latlut.cluster.sweep import ClusterResult, sweep_on_ray
from latlut.engines.choosing import DeviceChoice
from latlut.errors import LatlutError
from latlut.machine.cpu import allowed_cpus
from latlut.measure.plans import Plan, plan_from_ops
from latlut.measure.sweep_settings import SweepSettings
from latlut.operators import subgraph_store
from latlut.operators.workloads import Workload
from latlut.progress import Progress
from latlut.table.history import quarantines
from latlut.table.subgraphs import cut_of, stored_pieces
from latlut.table.table import LatencyTable
from latlut.validation.verdict import check

try:
    import ray
except ImportError:
    ray = None

# Ray's processes are many: one test at a time.
pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(ray is None, reason="Ray is not installed: pip install 'latlut[cluster]'"),
    pytest.mark.skipif(len(allowed_cpus()) < 2, reason="two workers need two CPUs"),
]

PLAN = plan_from_ops([f"conv 4->4 at 8x{width}" for width in range(4, 28)])
CHOICE = DeviceChoice(None, True, "scripted", "fp32", 1)
SETTINGS = SweepSettings(passes=3, group=3)

#: Registers an engine of scripted latencies: two processes wait for each other, and the one that
#: opened it first is SLOWNESS times as slow.
ENGINE = """
import os
import sys
import time

sys.path.insert(0, {tests!r})

import latlut.engines as engines
from fake_engine import FakeEngine


class Scripted(FakeEngine):
    name = "scripted"
    title = "Scripted engine"

    def __init__(self, threads=1, precision="fp32", device="cpu", options=None):
        super().__init__(noise=0.005)
        for mark in ({mark!r} + "-1", {mark!r} + "-2"):
            try:
                open(mark, "x").close()
                break
            except FileExistsError:
                continue
        is_first = mark.endswith("-1")
        for _ in range(600):
            if os.path.exists({mark!r} + "-2"):
                break
            time.sleep(0.1)
        self.speed = lambda runs: {slowness} if is_first else 1.0
        self.on_sample = lambda workload, runs: time.sleep(0.002)  # both get leases


engines._ENGINES["scripted"] = engines._Home("latlut_operators_scripted:Scripted", None)
"""


@pytest.fixture
def engine_file(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    path = tmp_path / "scripted.py"
    slowness, mark = getattr(request, "param", 1.0), str(tmp_path / "opened")
    path.write_text(ENGINE.format(tests=str(ROOT / "tests"), mark=mark, slowness=slowness))
    return str(path)


def _sweep(path: Path, engine_file: str, plan: Plan = PLAN, **more) -> ClusterResult:
    return sweep_on_ray(
        plan, CHOICE, SETTINGS, "local", lambda identity: path,
        workers_per_node=2, own_modules=[engine_file], **more,
    )  # fmt: skip


def _counts(table: LatencyTable) -> set[tuple[int, int]]:
    """(readings, passes) of all op specs, without quarantine."""
    rows = table.rows(
        "SELECT count(*) AS n, count(DISTINCT pass_index) AS passes FROM readings"
        " WHERE quarantine IS NULL GROUP BY op_spec"
    )
    assert len(rows) == len(PLAN.specs)
    return {(row["n"], row["passes"]) for row in rows}


def test_a_killed_worker_s_leases_go_back_and_nothing_is_doubled(
    db_path: Path, engine_file: str
) -> None:
    said: list[str] = []
    killed: list[int] = []

    def kill_once(progress: Progress) -> None:
        if progress.done >= 15 and not killed:
            found = re.search(r"process (\d+)", progress.label)
            assert found is not None
            killed.append(int(found[1]))
            os.kill(killed[0], signal.SIGKILL)

    result = _sweep(db_path, engine_file, listener=kill_once, say=said.append)
    assert killed
    assert any("is started again" in text for text in said), said
    assert (result.summary.status, result.summary.failed) == ("done", {})
    assert result.summary.measured == 3 * len(PLAN.specs)
    assert len({worker.place for worker in result.workers}) == 2
    assert min(worker.measured for worker in result.workers) > 0
    with LatencyTable.open(db_path) as table:
        assert _counts(table) == {(3, 3)}
        assert len(table) == len(PLAN.specs)
        assert {row["status"] for row in table.rows("SELECT status FROM runs")} == {"done"}
        (row,) = table.rows("SELECT count(*) AS n FROM runs")
        assert row["n"] in (2, 3)  # the new worker may come when all is done
        assert table.rows("PRAGMA foreign_key_check") == []
        assert table.rows("SELECT count(*) AS n FROM op_specs WHERE macs IS NULL") == [{"n": 0}]
    again = _sweep(db_path, engine_file)
    assert (again.summary.measured, again.summary.reused) == (0, 3 * len(PLAN.specs))


@pytest.mark.parametrize("engine_file", [1.3], indirect=True)
def test_a_slow_worker_is_put_into_quarantine(db_path: Path, engine_file: str) -> None:
    said: list[str] = []
    result = _sweep(db_path, engine_file, say=said.append)
    (slow,) = [worker for worker in result.workers if "quarantine" in worker.state]
    assert slow.speed == pytest.approx(1.3, rel=0.05)
    assert slow.measured == 0
    assert any("in quarantine" in text for text in said)
    assert result.summary.status == "done"
    with LatencyTable.open(db_path) as table:
        assert _counts(table) == {(3, 3)}
        (found,) = quarantines(table)
        assert found.readings > 0
        assert "1.3" in found.reason
        for entry in table:
            truth_ms = work_ns(Workload.from_spec(entry.spec)) / 1e6
            assert entry.latency_ms == pytest.approx(truth_ms, rel=0.03), entry.key
        assert any("in quarantine" in text for text in check(table).remarks)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine_file: str) -> None:
    monkeypatch.chdir(tmp_path)
    (engine,) = (option for option in main.get_command(None, "profile").params
                 if option.name == "engine")  # fmt: skip
    monkeypatch.setattr(engine, "type", click.Choice(["scripted"]))
    command = [
        "profile", "--cpu", "--ray", "local", "--workers", "2", "--engine", "scripted",
        "--operators", engine_file, "--op", "conv 4->4 at 8x8", "--op", "conv 4->8 at 8x8",
        "--passes", "2", "--json", "--quiet",
    ]  # fmt: skip
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["table"] == "profiles/cpu-scripted-fp32.db"
    assert (said["entries"], said["measured"], said["quarantine"]) == (2, 4, [])
    assert len(said["workers"]) == 2


def test_pieces_of_onnx_files_are_measured_by_workers_that_have_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(segmenter())
    command = [
        "profile", "--cpu", "--ray", "local", "--onnx", "net.onnx", "--passes", "2", "--json",
        "--table", "pieces.db",
    ]  # fmt: skip
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["failed"] == {}
    with LatencyTable.open(Path("pieces.db")) as table:
        pieces = stored_pieces(table)
        assert len(pieces) == len(table) == 2
        assert cut_of(table) == "work"
    Path("net.onnx").unlink()
    monkeypatch.setattr(subgraph_store, "_STORE", {})
    again = CliRunner().invoke(
        main,
        ["profile", "--cpu", "--ray", "local", "--onnx", "--passes", "3", "--json",
         "--table", "pieces.db"],
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["measured"] == 2


def test_a_cluster_that_is_not_there_and_too_many_workers(db_path: Path, engine_file: str) -> None:
    with pytest.raises(LatlutError, match="lower --workers"):
        sweep_on_ray(
            PLAN, CHOICE, SETTINGS, "local", lambda identity: db_path, workers_per_node=1000
        )
    with pytest.raises(LatlutError, match="no Ray cluster answers"):
        sweep_on_ray(PLAN, CHOICE, SETTINGS, "127.0.0.1:1", lambda identity: db_path)
    assert not db_path.exists()
