"""The commands as a user meets them, with the real ONNX Runtime on the smallest of plans."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from latlut.cli import main

PLAN = """
format = 1
name = "small"
input = "64x64"
[space]
name = "fasterseg"
layers = 3
widths = [4]
stem_head_widths = [4]
"""
OP = "conv 4->4 stride 1 at 8x8"
VERDICTS = ("OK", "CAUTION", "NOT RELIABLE")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(PLAN)
    return tmp_path


def run(*args: str) -> Result:
    result = CliRunner().invoke(main, list(args))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_main_job_from_end_to_end(folder: Path) -> None:
    result = run("profile", "--cpu", "--plan", "small.toml", "--passes", "3", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["entries"] == summary["op_specs"] > 20
    assert summary["failed"] == {}
    table = "profiles/cpu-onnxruntime-fp32.db"
    assert summary["table"] == table
    result = run("validate", "--networks", "5", "--rounds", "1", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert len(found["networks"]) == 5
    assert Path(found["plot"]).stat().st_size > 10_000
    told = run("validate", "--networks", "3", "--rounds", "1", "--min-r", "1")
    assert told.exit_code == 1
    assert told.stdout.splitlines()[-1].split(":")[0] in VERDICTS
    assert "stored in" in told.stdout and "main cause: " in told.stdout
    quiet = run(
        "validate", "--networks", "12", "--rounds", "1", "-q", "--seed", "1", "--explain", "0"
    )
    assert quiet.stdout.startswith("estimates") and len(quiet.stdout.splitlines()) == 5
    assert not quiet.stderr
    # Tests run side by side: a machine that they keep busy is refused without --force.
    calibrate = ("calibrate", "--table", table, "--networks", "10", "--force")
    fitted = json.loads(run(*calibrate, "--json").stdout)
    assert fitted["networks"] == 10
    assert [point["networks"] for point in fitted["learning_curve"]][0] == 0
    again = run("validate", "--networks", "12", "--rounds", "1", "-q", "--seed", "2", "--json")
    assert again.exit_code == 0, again.output
    side_by_side = json.loads(again.stdout)
    assert side_by_side["calibrated"]["plain"] == side_by_side["plain"]
    assert len(side_by_side["composition"]) == 3
    for item in side_by_side["composition"]:
        parts = sum(effect["ms"] for effect in item["effects"])
        assert parts == pytest.approx(item["whole_ms"] - item["plain_ms"])
    assert run("calibrate", "--table", table, "--forget").exit_code == 0
    assert run("calibrate", "--table", table, "--networks", "90").exit_code == 2
    info = json.loads(run("table", "info", "cpu", "--json").stdout)
    assert info["entries"] == summary["entries"]
    assert len(info["validations"]) == 4
    assert info["calibrations"] == []
    assert run("table", "check", table).stdout.splitlines()[0].split(": ")[1] in VERDICTS
    rows = json.loads(run("table", "query", table, "--kind", "conv", "--json").stdout)
    assert rows
    assert {row["kind"] for row in rows} == {"conv"}
    assert run("table", "export", table, "out.csv").exit_code == 0
    assert run("table", "import", "out.csv", "--table", "copy.db").exit_code == 0
    assert "0 moved" in run("table", "diff", table, "copy.db").stdout
    key = rows[0]["op_spec"]
    priced = json.loads(run("estimate", "--table", table, "--op", key, "--json").stdout)
    assert priced["latency_ms"] == pytest.approx(rows[0]["latency_ms"], rel=1e-3)


def test_single_op_specs_and_resuming(folder: Path) -> None:
    first = json.loads(run("profile", "--op", OP, "--json", "-q").stdout)
    assert (first["entries"], first["measured"]) == (1, 5)
    again = json.loads(run("profile", "--op", OP, "--json", "-q").stdout)
    assert (again["measured"], again["reused"]) == (0, 5)


def test_a_sweep_says_what_the_table_holds_and_quietly_only_that(folder: Path) -> None:
    loud = run("profile", "--op", OP, "--passes", "3")
    assert "95% interval of the entry: ±" in loud.stdout and "(median)" not in loud.stdout
    assert "check its accuracy with: latlut table check" in loud.stdout
    quiet = run("profile", "--op", OP, "--passes", "3", "-q")
    first, *latencies = quiet.stdout.splitlines()
    assert first.startswith("1 of 1 operator configurations have an entry in profiles/")
    assert len(latencies) == 2 and latencies[1].startswith(OP)
    assert quiet.stderr == ""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "pytorch"])
def test_every_engine_profiles_with_two_threads(folder: Path, engine: str) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU only")
    result = run("profile", "--engine", engine, "--threads", "2", "--op", OP, "--passes", "2", "-q")
    assert result.exit_code == 0, result.output
    path = folder / "profiles" / f"cpu-{engine}-fp32-2threads.db"
    info = json.loads(run("table", "info", str(path), "--json").stdout)
    assert (info["identity"]["threads"], info["entries"]) == (2, 1)
    # What is not said again is taken from the table.
    again = json.loads(run("profile", "--table", str(path), "--op", OP, "-q", "--json").stdout)
    assert again["reused"] == 2


def test_operators_of_ones_own(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "from torch import nn\n"
        "from latlut.operators import register\n"
        "@register('wide_relu')\n"
        "def wide_relu(spec):\n"
        "    return nn.ReLU6()\n"
    )
    op = "wide_relu 4->4 stride 1 at 8x8"
    result = run("profile", "--cpu", "--op", op, "--operators", "mine.py", "-q", "--passes", "1")
    assert result.exit_code == 0, result.output
    assert "wide_relu" in run("table", "query", "cpu", "--json").stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["profile", "--op", "conf 4->4 at 8x8"], "did you mean 'conv'"),
        (["profile", "--op", "conv 0->4 at 8x8"], "input channels must be between"),
        (["profile", "--op", "conv 4->4 at 8x-8"], "cannot read the operator"),
        (["profile", "--op", "conv 60000->60000 at 60000x60000"], "beyond the limit"),
        (["profile", "--op", OP, "--plan", "tiny"], "exclude each other"),
        (["profile", "--plan", "tinny"], "did you mean 'tiny'"),
        (["profile", "--plan", "bad.toml"], "strid"),
        (["profile", "--engine", "onnx"], "onnxruntime"),
        (["profile", "--engine", "tensorrt"], "TensorRT cannot run here"),
        (["profile", "--engine", "tensorrt-rtx"], "TensorRT-RTX cannot run here"),
        (["profile", "--engine", "tensorrt-rtx", "--cpu"], "TensorRT-RTX runs on GPUs only"),
        (["profile", "--gpu", "1080ti"], "what can be used here: --cpu"),
        (["profile", "--gpu", "1080tie"], "1080ti"),
        (["profile", "--cpu", "--gpu", "1080ti"], "exclude each other"),
        (["profile", "--cpu", "--precision", "fp16", "--op", OP], "fp32"),
        (["profile", "--cpu", "--threads", "0", "--op", OP], "threads"),
        (["profile", "--cpu", "--threads", "999", "--op", OP], "999"),
        (["profile", "--cpu", "--input", "0x512"], "between 1 and"),
        (["profile", "--cpu", "--input", "256"], "HEIGHTxWIDTH"),
        (["profile", "--cpu", "--statistic", "mode", "--op", OP], "median"),
        (["profile", "--cpu", "--ci", "0", "--op", OP], "fraction"),
        (["profile", "--cpu", "--budget", "soon", "--op", OP], "duration"),
        (["profile", "--cpu", "--op", OP, "--table", "notes.txt"], "not a table"),
        (["profile", "--cpu", "--op", OP, "--operators", "none.py"], "no such file"),
        (["validate"], "make one with latlut profile"),
        (["validate", "--table", "none.db"], "latlut profile --table none.db"),
        (["estimate", "--table", "none.db", "--op", OP], "no table none.db"),
        (["estimate", "--table", "notes.txt", "--op", OP], "not a table"),
        (["estimate", "--table", "x"], "with --arch"),
        (["table", "info", "notes.txt"], "not a table"),
        (["table", "import", "none.csv"], "no such file"),
        (["table", "import", "notes.txt"], "suffix|.csv"),
        (["table", "import", "bad.csv"], "latency_ms"),
        (["table", "import", "ok.csv", "--identity", "engine"], "FIELD=VALUE"),
        (["targets", "voodoo"], "known"),
    ],
)
def test_what_cannot_be_done_is_said_without_traceback(
    folder: Path, args: list[str], words: str
) -> None:
    (folder / "notes.txt").write_text("no table\n")
    (folder / "bad.toml").write_text(
        "format = 1\n[[grid]]\nkind = 'conv'\nin_channels = 4\nout_channels = 4\n"
        "size = '8x8'\nstrid = 2\n"
    )
    (folder / "bad.csv").write_text("op_spec,ms\nconv 4->4 at 8x8,1\n")
    (folder / "ok.csv").write_text("op_spec,latency_ms\nconv 4->4 at 8x8,1\n")
    before = sorted(path.name for path in folder.rglob("*"))
    result = run(*args)
    assert result.exit_code == 2, result.output
    assert words.split("|")[0] in result.output or words.split("|")[-1] in result.output
    assert "Traceback" not in result.output
    assert sorted(path.name for path in folder.rglob("*")) == before  # nothing half-written


def test_a_table_of_another_target_is_refused(folder: Path) -> None:
    assert run("profile", "--cpu", "--op", OP, "-q", "--table", "a.db").exit_code == 0
    result = run("profile", "--engine", "pytorch", "--cpu", "--op", OP, "-q", "--table", "a.db")
    assert result.exit_code == 2
    assert "engine: 'onnxruntime' here, 'pytorch' there" in result.output


def test_targets_and_doctor_answer(folder: Path) -> None:
    targets = json.loads(run("targets", "--json").stdout)["targets"]
    assert {"1080ti", "2080ti", "titan-rtx", "t4", "v100", "3090", "4090", "a100", "h100", "h200",
            "jetson-orin", "cpu"} <= {target["name"] for target in targets}  # fmt: skip
    doctor = run("doctor")
    assert doctor.exit_code == 0
    assert "works  ONNX Runtime" in doctor.stdout
    assert "TensorRT" in doctor.stdout


def _latlut(*args: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "latlut", *args]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
        **options,
    )  # fmt: skip


def _wait_for_measurements(path: Path, process: subprocess.Popen) -> None:
    import sqlite3

    for _ in range(600):
        if path.exists():
            try:
                connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
                (count,) = connection.execute("SELECT count(*) FROM measurements").fetchone()
                connection.close()
                if count:
                    return
            except sqlite3.OperationalError:
                pass
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("nothing was measured within a minute")


def test_ctrl_c_a_second_measurer_and_going_on(folder: Path) -> None:
    path = folder / "profiles" / "cpu-onnxruntime-fp32.db"
    command = ("profile", "--cpu", "--plan", "small.toml", "--passes", "40")
    process = _latlut(*command)
    _wait_for_measurements(path, process)
    second = _latlut("profile", "--cpu", "--op", OP, "--table", "other.db")
    output, errors = second.communicate(timeout=120)
    assert second.returncode == 2
    holder = int(re.findall(r"kill (\d+)", errors)[0])
    parent = int(Path(f"/proc/{holder}/stat").read_text().rpartition(")")[2].split()[1])
    assert process.pid in (holder, parent)  # the command, or the process that measures for it
    assert "profile" in errors
    assert not (folder / "other.db").exists()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command continues from here" in errors
    assert "Traceback" not in errors
    info = json.loads(run("table", "info", str(path), "--json").stdout)
    assert info["runs"][-1]["status"] == "stopped"
    assert info["entries"] > 0
    summary = json.loads(run(*command[:-2], "--passes", "1", "--json", "-q").stdout)
    assert summary["reused"] > 0
