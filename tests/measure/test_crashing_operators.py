"""Operators that end or block the process that measures them, in a sweep as it is typed."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from latlut.table import history
from latlut.table.table import LatencyTable

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="processes are supervised on Linux"
    ),
]

OPERATORS = """
import ctypes, os, signal, time
import torch
from latlut.operators import register

def hang():
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    time.sleep(1000)

def fill():
    kept = []
    while True:
        kept.append(torch.ones(1 << 26))

ACTS = {
    "aborts": os.abort, "segfaults": lambda: ctypes.string_at(0), "leaves": lambda: os._exit(0),
    "hangs": hang, "fills": fill,
}

class Acting(torch.nn.Module):
    def __init__(self, act):
        super().__init__()
        self.act = act

    def forward(self, x):
        if x.device.type != "meta":
            self.act()
        return x

for name, act in ACTS.items():
    register(name)(lambda spec, act=act: Acting(act))
    register(f"{name}_as_it_is_built")(lambda spec, act=act: act())
"""
GOOD = ("conv 4->4 stride 1 at 8x8", "conv 4->8 stride 1 at 8x8")
LIMIT_BYTES = 6 << 30


def command(*bad: str, timeout: str) -> list[str]:
    specs = [*GOOD, *(f"{name} 4->4 stride 1 at 8x8" for name in bad)]
    return [
        sys.executable, "-m", "latlut", "profile", "--cpu", "--engine", "pytorch",
        "--table", "t.db", "--passes", "2", "--operators", "ops.py", "--timeout", timeout,
        *(word for spec in specs for word in ("--op", spec)),
    ]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "ops.py").write_text(OPERATORS)
    return tmp_path


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(words: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=place, capture_output=True, text=True, preexec_fn=limited, check=False
    )


def test_each_is_failed_by_name_and_the_others_are_measured(place: Path) -> None:
    reasons = {
        "aborts": "SIGABRT", "segfaults": "SIGSEGV", "leaves": "ended by exit(0)",
        "leaves_as_it_is_built": "ended by exit(0)", "fills": "memory",
    }  # fmt: skip
    done = run(command(*reasons, timeout="5m"), place)
    assert done.returncode == 1, done.stderr
    assert "2 of 7 operator configurations have an entry" in done.stdout
    with LatencyTable.open(place / "t.db") as table:
        failed = history.failures(table)
        assert len(history.visits(table)) == 4
        assert history.measured_keys(table) == set(GOOD)
    assert {key.split()[0] for key in failed} == set(reasons)
    for name, reason in reasons.items():
        key = f"{name} 4->4 stride 1 at 8x8"
        assert reason in failed[key] and f"failed: {key}: " in done.stdout
    (place / "ops.py").write_text(OPERATORS.replace("            self.act()", "            pass"))
    mended = run(command("aborts", "segfaults", timeout="5m"), place)
    assert mended.returncode == 0, mended.stderr + mended.stdout
    assert (
        "4 of 4 operator configurations have an entry" in mended.stdout
    )  # repeated, it is tried again


def test_one_that_hangs_is_timed_out(place: Path) -> None:
    done = run(command("hangs", timeout="40s"), place)
    assert done.returncode == 1, done.stderr
    assert "failed: hangs 4->4 stride 1 at 8x8: timed out after 40 s (--timeout)" in done.stdout
    assert "2 of 3 operator configurations have an entry" in done.stdout


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.long), (signal.SIGTERM, 143)],
)
def test_a_sweep_that_is_stopped_keeps_what_it_measured(
    place: Path, number: signal.Signals, code: int
) -> None:
    words = [*command(timeout="5m"), "--passes", "100"]
    process = subprocess.Popen(words, cwd=place, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:  # one per tenth
            if line.startswith("profile: 10%"):
                break
        process.send_signal(number)
        _, text = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == code, text
    assert "the same command continues from here" in text
    with LatencyTable.open(place / "t.db") as table:
        assert list(history.latest_runs(table).values()) == ["stopped"]
        assert history.measurement_count(table) >= 20
        assert len(table.frame()) == 2
