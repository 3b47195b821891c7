"""``latlut train`` and ``search`` in two processes: who writes and prints, what a kill leaves."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed_runs import NETWORK, SPACE
from small_tables import ablation_table

from latlut.search.runs.checkpoints import load_checkpoint

pytestmark = pytest.mark.slow
DATA = {"data.image_size": [32, 64], "data.train_images": 8, "data.validation_images": 2}
PHASE = {"epochs": 1, "iterations": 1, "batch": 2, "crop": [24, 40]}
LIMIT_S = 600


def arguments(kind: str, folder: Path, **phase: object) -> list[str]:
    """Of ``latlut train`` or ``latlut search``, small, on one thread."""
    groups = ("schedule",) if kind == "train" else ("pretrain", "search")
    chosen = {
        **DATA,
        **{f"{g}.{name}": v for g in groups for name, v in {**PHASE, **phase}.items()},
    }
    named = ["--arch", str(folder / "network.json"), "--teacher", "none"]
    if kind == "search":
        named = ["--table", str(folder / "table.db")]
    pairs = [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]
    return [kind, *named, "--run", str(folder / "run"), "--accelerator", "cpu", *pairs]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    NETWORK.save(tmp_path / "network.json")
    ablation_table(tmp_path / "table.db", SPACE)
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "history", "headline", "result"),
    [
        ("train", "epochs.csv", "training into ", "best: "),
        pytest.param(
            "search", "trajectory.csv", "searching into ", "student: ", marks=pytest.mark.long
        ),
    ],
)
def test_the_first_process_alone_writes_and_prints(
    folder: Path, kind: str, history: str, headline: str, result: str
) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", "--", "latlut", *arguments(kind, folder),
        ],
        capture_output=True, text=True, check=False, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(headline) == 1 and "GLOBAL_RANK" not in done.stderr
    assert done.stdout.count(result) == 1
    run = folder / "run"
    assert json.loads((run / "run.json").read_text())["processes"] == 2
    with (run / history).open(newline="") as file:
        assert len(list(csv.DictReader(file))) == (1 if kind == "train" else 2)
    assert len(list((run / "tensorboard").glob("events.*"))) == 1
    assert not list(run.rglob(".*"))


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_killed_process_ends_the_other_and_leaves_a_run_to_go_on_with(
    folder: Path, victim: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    command = [sys.executable, "-m", "latlut", *arguments("train", folder, epochs=10_000)]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        subprocess.Popen(
            command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, **shared, "RANK": rank, "OMP_NUM_THREADS": "1"},
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    try:
        last = folder / "run" / "checkpoints" / "last.pt"
        deadline = time.monotonic() + LIMIT_S
        while not last.exists() and time.monotonic() < deadline:
            assert all(process.poll() is None for process in ranks)
            time.sleep(0.1)
        ranks[victim].send_signal(signal.SIGKILL)
        other = ranks[1 - victim]
        output, told = other.communicate(timeout=LIMIT_S)
    finally:
        for process in ranks:
            process.kill()
            process.communicate()
    assert other.returncode == 2 and output == ""
    assert f"process {2 - victim} of 2 waited in vain for the others" in told
    assert "the same command continues from the last epoch" in told
    assert "Traceback" not in told
    run = folder / "run"
    assert json.loads((run / "run.json").read_text())["processes"] == 2
    assert load_checkpoint(last, "training")["epoch"] >= 1
    if victim == 1:  # the first was not killed while it wrote
        assert not list(run.rglob(".*"))
