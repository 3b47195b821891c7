"""One measurer per device, shown with real second processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("fcntl", reason="device locks need flock")

from latlut.errors import DeviceBusyError, LatlutError
from latlut.machine import lock as devicelock
from latlut.machine.lock import device_lock, lock_dir, shared_device_lock

HOLD = """
import sys
from latlut.machine.lock import device_lock
with device_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""

HOLD_AND_FORK = """
import os, sys, time
from latlut.machine.lock import device_lock
with device_lock(sys.argv[1]):
    child = os.fork()
    if child == 0:
        sys.stdin.read()
        os._exit(0)
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def lock_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "locks"
    monkeypatch.setenv("LATLUT_LOCK_DIR", str(folder))
    return folder


@contextmanager
def other_process(device: str, code: str = HOLD) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock; it lets go when its input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, device],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait(60)
        process.stdin.close()
        process.stdout.close()


def test_the_lock_can_be_taken_again_and_again() -> None:
    for _ in range(3):
        with device_lock("cpu") as path:
            assert path is not None
            assert path.is_file()


def test_a_second_process_is_refused_with_who_holds_it() -> None:
    with other_process("cuda:0") as holder:
        with pytest.raises(DeviceBusyError) as caught, device_lock("cuda:0"):
            pass
        message = str(caught.value)
        assert message.startswith("cuda:0 is busy")
        assert f"process {holder.pid} " in message
        assert "latlut.machine.lock" in message  # its command line
        assert " since 2" in message
        assert f"kill {holder.pid}" in message


def test_devices_do_not_exclude_each_other() -> None:
    with other_process("GPU-a"), device_lock("GPU-b"), device_lock("cpu"):
        pass


def test_a_process_that_ends_frees_the_lock() -> None:
    with other_process("cpu") as holder:
        assert holder.stdin is not None
        holder.stdin.close()
        assert holder.wait(60) == 0
        with device_lock("cpu"):
            pass


def test_a_killed_process_frees_the_lock_and_its_name_is_not_believed() -> None:
    with other_process("cpu") as killed:
        killed.send_signal(signal.SIGKILL)
        killed.wait(60)
        with device_lock("cpu") as path:
            assert path is not None
            assert f'"pid": {os.getpid()}' in path.read_text()
            assert str(killed.pid) not in path.read_text()


def test_a_child_of_a_killed_holder_is_described_as_one() -> None:
    with other_process("cpu", HOLD_AND_FORK) as killed:
        killed.send_signal(signal.SIGKILL)
        killed.wait(60)
        with (
            pytest.raises(DeviceBusyError, match=f"a process that {killed.pid} started"),
            device_lock("cpu"),
        ):
            pass
        assert killed.stdin is not None
        killed.stdin.close()  # the child reads the end of its input and exits


def test_the_same_process_is_refused_too_and_keeps_its_lock() -> None:
    with device_lock("cpu"):
        with pytest.raises(DeviceBusyError, match="this process"), device_lock("cpu"):
            pass
        with pytest.raises(DeviceBusyError, match="this process"), device_lock("cpu"):
            pass
    with device_lock("cpu"):
        pass


def test_an_error_inside_frees_the_lock_and_leaves_no_name() -> None:
    with pytest.raises(ZeroDivisionError), device_lock("cpu"):
        _ = 1 / 0
    with device_lock("cpu") as path:
        assert path is not None
    assert path.read_text() == ""


def test_content_that_says_nothing_still_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devicelock, "_READ_PAUSE_S", 0.0)
    with device_lock("cpu") as path:
        assert path is not None
        for text in ("", "{half", "[1]", '{"pid": "x"}'):
            path.write_text(text)
            with pytest.raises(DeviceBusyError, match="cpu is busy"), device_lock("cpu"):
                pass


def test_all_users_can_open_the_files(lock_folder: Path) -> None:
    umask = os.umask(0o077)
    try:
        with device_lock("../cpu 0") as path:
            assert path is not None
            assert path.parent == lock_folder
            assert stat.S_IMODE(path.stat().st_mode) == 0o666
            assert stat.S_IMODE(lock_folder.stat().st_mode) == 0o1777
    finally:
        os.umask(umask)


def test_a_link_in_place_of_the_file_is_not_followed(lock_folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock_folder.mkdir()
    (lock_folder / "cpu.lock").symlink_to(victim)
    with pytest.raises(LatlutError, match="LATLUT_LOCK_DIR"), device_lock("cpu"):
        pass
    assert victim.read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LATLUT_LOCK_DIR", str(tmp_path / "file"))
    with pytest.raises(LatlutError, match="cannot make the lock file"), device_lock("cpu"):
        pass


def test_the_place_is_the_machine_s_not_the_job_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LATLUT_LOCK_DIR")
    monkeypatch.setenv("TMPDIR", "/some/job")
    assert lock_dir() == Path("/tmp/latlut-locks")


def test_a_system_without_flock_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devicelock, "fcntl", None)
    with pytest.warns(RuntimeWarning, match="no flock"), device_lock("cpu") as path:
        assert path is None


def test_cpus_are_shared_by_those_that_take_others_of_them() -> None:
    with shared_device_lock("cpu", [0]), shared_device_lock("cpu", [1, 2]):
        with pytest.raises(DeviceBusyError, match="cpu-1 is busy"), shared_device_lock("cpu", [1]):
            pass
        with pytest.raises(DeviceBusyError, match="cpu is busy"), device_lock("cpu"):
            pass
    with (
        device_lock("cpu"),
        pytest.raises(DeviceBusyError, match="cpu is busy"),
        shared_device_lock("cpu", [0]),
    ):
        pass
    with device_lock("cpu"):  # and all of it is free again
        pass
