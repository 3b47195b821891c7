"""A process that crashes, hangs or is stopped while it measures, and the one that watches it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latlut.measure.attempts import Attempts
from latlut.measure.supervising import Supervision, supervise

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="processes are supervised on Linux"
)

#: Works on three op specs in turn, and on those alone whose process did not die before.
WORK = """
import ctypes, json, os, signal, sys, time
from pathlib import Path
from latlut.errors import LatlutError
from latlut.measure.supervising import supervise

def hang():
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    time.sleep(1000)

try:
    found = supervise({timeout_s}, lambda text: print(text, file=sys.stderr))
except LatlutError as error:
    sys.exit(f"refused: {{error}}")
if isinstance(found, int):
    sys.exit(found)
try:
    for key in ("good", "bad", "other"):
        if key in found.failed:
            continue
        found.attempts.turn_to(key)
        if key == "bad":
            Path("child").write_text(str(os.getpid()))
            {act}
        found.attempts.turn_to(None)
        found.attempts.add_measured(1)
except KeyboardInterrupt:
    time.sleep(0.5)  # stores what it has
    print("stored")
    sys.exit(130)
print(json.dumps([dict(found.failed), found.attempts.measured]))
sys.exit(bool(found.failed))
"""
NO_LIMIT = None


def command(act: str, timeout_s: float | None = NO_LIMIT) -> list[str]:
    return [sys.executable, "-c", WORK.format(act=act, timeout_s=timeout_s)]


def run(
    act: str, cwd: Path, timeout_s: float | None = NO_LIMIT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(act, timeout_s), cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def started(act: str, cwd: Path) -> tuple[subprocess.Popen[str], int]:
    """The command while it works on the second op spec, and the number of its child."""
    process = subprocess.Popen(command(act), cwd=cwd, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (cwd / "child").exists() or not (cwd / "child").read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    return process, int((cwd / "child").read_text())


def is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_what_ends_as_it_should_is_left_alone(tmp_path: Path) -> None:
    done = run("pass", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [{}, 3]


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("os.abort()", "ended by SIGABRT"),
        ("ctypes.string_at(0)", "ended by SIGSEGV"),
        ("os._exit(0)", "ended by exit(0)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "when memory runs out"),
        ("hang()", "timed out after 2 s (--timeout)"),
        ("time.sleep(1000)", "timed out after 2 s (--timeout)"),
    ],
)
def test_what_dies_or_hangs_is_failed_by_name_and_the_others_are_done(
    tmp_path: Path, act: str, reason: str
) -> None:
    done = run(act, tmp_path, timeout_s=2.0)
    assert done.returncode == 1, done.stderr
    failed, measured = json.loads(done.stdout)
    assert list(failed) == ["bad"] and reason in failed["bad"]
    assert measured == 3  # "good" by both processes, which start anew here, and "other"
    assert "bad: " in done.stderr and "going on without it" in done.stderr


def test_a_death_that_no_op_spec_explains_ends_the_command(tmp_path: Path) -> None:
    done = run("found.attempts.turn_to(None); os.abort()", tmp_path)
    assert done.returncode == 1
    assert "refused: the process that measured was ended by SIGABRT" in done.stderr
    again = command("os.abort()")[2].replace("if key in found.failed", "if False")
    done = subprocess.run(
        [sys.executable, "-c", again], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "again with bad" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("is_sent_to_both", [False, True])
def test_stopping_lets_the_child_store_what_it_has(
    tmp_path: Path, number: signal.Signals, code: int, is_sent_to_both: bool
) -> None:
    process, child = started("time.sleep(1000)", tmp_path)
    if is_sent_to_both:  # as Ctrl-C in a terminal is
        os.kill(child, number)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code and output == "stored\n"


def test_stopping_twice_ends_a_child_that_does_not_listen(tmp_path: Path) -> None:
    process, child = started("hang()", tmp_path)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130 and not is_there(child)


def test_the_child_goes_with_its_parent(tmp_path: Path) -> None:
    process, child = started("hang()", tmp_path)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while is_there(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_with_threads_of_its_own_is_not_forked() -> None:
    import torch  # noqa: F401  # whose threads a fork would lose

    found = supervise(1.0, pytest.fail)
    assert isinstance(found, Supervision) and not found.failed


def test_turns_of_one_visit_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    attempts = Attempts()
    assert attempts.current() is None
    attempts.turn_to("a")
    now = 107.0
    attempts.turn_to("b")
    now = 110.0
    attempts.turn_to("a")
    assert attempts.current() == ("a", 103.0)  # seven seconds were spent on it
    attempts.begin_visit()
    attempts.turn_to(None)
    attempts.begin_visit()
    attempts.turn_to("a")
    assert attempts.current() == ("a", 110.0)
    long = "k" * 20_000
    attempts.turn_to(long)
    found = attempts.current()
    assert found is not None and long.startswith(found.key) and len(found.key) > 10_000


#: A command without a table, whose network never ends, crashes or is measured.
COMMAND = """
import os, sys, time
from latlut.errors import LatlutError
from latlut.measure.supervising import supervise_command

try:
    found = supervise_command("a.onnx", 1.0)
    if isinstance(found, int):
        sys.exit(found)
    found.attempts.turn_to(None)
    if {pause}:
        time.sleep(2.5)  # the device is taken: no network's fault
    with found.working_on("network"):
        {first}
    with found.working_on("network"):
        {second}
    print("measured")
except LatlutError as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
"""


@pytest.mark.parametrize(
    ("first", "second", "pause", "says"),
    [
        ("pass", "time.sleep(60)", False, "EngineError: network: timed out after 1 s (--timeout)"),
        ("os.abort()", "pass", False,
         "EngineError: network: the process that measured it was ended by SIGABRT"),
        ("time.sleep(0.7)", "time.sleep(0.7)", True, "measured"),
    ],
)  # fmt: skip
def test_a_network_that_never_ends_is_named(
    first: str, second: str, pause: bool, says: str
) -> None:
    script = COMMAND.format(first=first, second=second, pause=pause)
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout + done.stderr).strip() == says
    assert done.returncode == (0 if says == "measured" else 1)
