"""``latlut search`` as a user runs it: a run folder, going on, refusals, two processes."""

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
import small_tables
import torch
from click.testing import CliRunner, Result
from small_tables import plausible_ms, space_table

from latlut.cli import main
from latlut.search.runs.checkpoints import load_checkpoint
from latlut.spaces import Architecture, FasterSegSpace
from latlut.table.identity import Identity
from latlut.table.table import LatencyTable

SPACE = FasterSegSpace(layers=4, base_width=3, widths=(4, 8), stem_head_widths=(4, 8))
SMALL = [
    "data.image_size=[32, 64]", "data.train_images=8", "data.validation_images=2",
    "pretrain.epochs=1", "pretrain.iterations=2", "pretrain.batch=2", "pretrain.crop=[24, 40]",
    "search.epochs=2", "search.iterations=2", "search.batch=2", "search.crop=[24, 40]",
    "rank.epochs=1", "rank.iterations=2", "rank.batch=2", "rank.crop=[24, 40]",
    "rank.candidates=3", "rank.evolution=1",
]  # fmt: skip
ARGUMENTS = [part for setting in SMALL for part in ("--set", setting)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    space_table(tmp_path / "table.db", SPACE, plausible_ms).close()
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(
        main, ["search", "--table", "table.db", "--threads", "1", *ARGUMENTS, *arguments]
    )


def test_a_search_writes_all_that_it_says(folder: Path) -> None:
    result = run("--accelerator", "cpu", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert abs(found["student"]["latency_ms"] / found["target_ms"] - 1) <= 0.02
    at = folder / "runs" / "search"
    names = {path.name for path in at.iterdir()}
    assert names == {
        "archive", "checkpoints", "result.json", "run.json", "settings.json", "student.json",
        "student.png", "teacher.json", "teacher.png", "tensorboard", "trajectory.csv",
        "trajectory.png",
    }  # fmt: skip
    facts = json.loads((at / "run.json").read_text())
    assert facts["table_identity"]["engine"] == "none"
    assert facts["environment"]["python"]
    settings = json.loads((at / "settings.json").read_text())
    assert settings["search"]["epochs"] == 2
    assert len((at / "trajectory.csv").read_text().splitlines()) == 7
    assert found["against_random"]["networks"] <= 3
    priced = CliRunner().invoke(
        main, ["estimate", "--table", "table.db", "--arch", str(at / "student.json"), "--json"]
    )
    assert priced.exit_code == 0, priced.output
    assert json.loads(priced.stdout)["latency_ms"] == pytest.approx(found["student"]["latency_ms"])
    assert Architecture.load(at / "teacher.json").stem_width == 12


def test_the_last_lines_say_what_the_choice_is_worth_and_what_is_predicted(folder: Path) -> None:
    with LatencyTable.open("table.db", is_writable=True) as table, table.writing() as db:
        db.execute("UPDATE entries SET predicted_from = 20 WHERE op_spec_id % 2")
    result = run("--accelerator", "cpu", "--set", "search.epochs=1")
    assert result.exit_code == 0, result.output
    assert "ms, which was then fitted to" in result.stdout
    assert "chosen against random at equal latency: inherited mIoU" in result.stdout
    assert "images to rank networks by" in result.stderr
    assert re.search(r"predicted, not measured: [1-9]\d?% of the estimate", result.stdout)
    result = json.loads((folder / "runs" / "search" / "result.json").read_text())
    for facts in (result["student"], *result["front"]):
        assert 0 < facts["predicted_ms"] < facts["latency_ms"]
    priced = CliRunner().invoke(
        main,
        ["estimate", "--table", "table.db", "--arch", "runs/search/student.json", "--json"],
    )
    expected = json.loads(priced.stdout)["predicted_ms"]
    assert result["student"]["predicted_ms"] == pytest.approx(expected)
    paper = run("--method", "paper", "--accelerator", "cpu", "--run", "paper")
    assert paper.exit_code == 0, paper.output
    assert "chosen against random" not in paper.stdout
    result = json.loads((folder / "paper" / "result.json").read_text())
    assert result["against_random"] is None
    gaps = CliRunner().invoke(main, ["sensitivity", "--table", "table.db"])
    assert "operator configurations of the space are predicted, not measured" in gaps.stderr
    gaps = CliRunner().invoke(main, ["sensitivity", "--table", "table.db", "--json"])
    found = json.loads(gaps.stdout)
    assert f"{found['predicted']} of " in gaps.stderr
    assert f"measured: {100 * found['predicted_share']:.0f}% of their latencies" in gaps.stderr


def test_measuring_on_another_machine_is_refused_before_the_search(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Identity("cpu", "Another CPU", "onnxruntime", "0")
    monkeypatch.setattr(small_tables, "Identity", lambda *_: elsewhere)
    (folder / "table.db").unlink()
    space_table(folder / "table.db", SPACE, plausible_ms).close()
    result = run("--measure", "--accelerator", "cpu")
    assert result.exit_code == 2
    assert "Another CPU" in result.output
    assert not (folder / "runs").exists()


def test_other_settings_do_not_go_on_with_a_run(folder: Path) -> None:
    assert run("--accelerator", "cpu").exit_code == 0
    result = run("--accelerator", "cpu", "--seed", "3")
    assert result.exit_code == 2
    assert "seed: 0 there, 3 asked for" in result.output
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "thesis.txt").write_text("mine")
    result = run("--run", "elsewhere")
    assert result.exit_code == 2 and "something else" in result.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--target-ms", "0.001"], "can be reached"),
        (["--preset", "tinny"], "did you mean 'tiny'"),
        (["--set", "search.epoch=3"], "search.epoch"),
        (["--weights", "1,2"], "three numbers"),
        (["--targets", "1,two"], "--targets"),
        (["--targets", "0.001,9999"], "none of the targets"),
        (["--data", "cityscapes:nowhere"], "no such folder"),
        (["--set", "space.layers=2"], "space.layers"),
        (["--accelerator", "gpu"], "--accelerator gpu"),
        (["--accelerator", "cpu", "--set", "search.batch=50"], "fewer than one batch"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    folder: Path, arguments: list[str], expected: str
) -> None:
    if "gpu" in arguments and torch.cuda.is_available():
        pytest.skip("a CUDA GPU is here")
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert expected in result.output
    assert not (folder / "runs").exists()


def test_a_table_that_lacks_entries_names_them_and_the_command(folder: Path) -> None:
    result = run("--branches", "1")
    assert result.exit_code == 2
    assert "lacks" in result.output and "fusion" in result.output
    assert "latlut profile --table table.db" in result.output


def command(*arguments: str) -> list[str]:
    return [
        sys.executable, "-m", "latlut", "search", "--table", "table.db", "--accelerator", "cpu",
        "--threads", "1", *ARGUMENTS, *arguments,
    ]  # fmt: skip


@pytest.mark.slow
def test_ctrl_c_and_the_same_command_again(folder: Path) -> None:
    endless = ["--set", "search.epochs=60", "--run", "run"]
    started = subprocess.Popen(command(*endless), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (folder / "run" / "checkpoints" / "previous.pt").exists():
        assert time.monotonic() < deadline and started.poll() is None
        time.sleep(0.1)
    started.send_signal(signal.SIGINT)
    _, text = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "the same command continues" in text
    before = load_checkpoint(folder / "run" / "checkpoints" / "last.pt", "search")
    assert before["phase"] == "search"
    again = subprocess.Popen(command(*endless), stderr=subprocess.PIPE, text=True)
    assert again.stderr is not None
    lines = []
    for line in again.stderr:
        lines.append(line)
        if re.match(r"search \d+/", line):
            break
    again.kill()
    again.communicate()
    assert any(line.startswith("going on with") for line in lines)
    assert lines[-1].startswith(f"search {before['epoch'] + 1}/60")


@pytest.mark.slow
def test_two_processes_stay_in_step(folder: Path) -> None:
    """Data parallel over two CPU processes: one result, and both saw other images."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command("--processes", "2", "--run", "two", "--json", "--set", "data.train_images=16"),
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert abs(found["student"]["latency_ms"] / found["target_ms"] - 1) <= 0.02
    state = load_checkpoint(folder / "two" / "checkpoints" / "last.pt", "search")
    assert state["epoch"] == 2
