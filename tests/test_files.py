"""Files that are there whole or not at all, and what killed processes leave of them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from latlut.errors import ImportFileError
from latlut.files import writing as files
from latlut.files.writing import WriteError, written_whole
from latlut.spaces import Architecture, Branch, Cell

KILLED = """
import os, signal, sys
from pathlib import Path
from latlut.files.writing import written_whole
with written_whole(Path(sys.argv[1])) as part:
    part.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
NETWORK = Architecture(8, 8, (Branch(16, (Cell("conv", 4, True), Cell("conv", 8))),), base_width=3)


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a[1].json"  # a name that a pattern would read otherwise
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".a[1].json.")
    (tmp_path / ".b.json.x.latlut-part").mkdir()
    with written_whole(path) as part:
        part.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == ["a[1].json"]


def test_what_another_is_writing_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with written_whole(path) as first:
        first.write_text("first")
        with written_whole(path) as second:
            second.write_text("second")
        assert path.read_text() == "second" and first.read_text() == "first"
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only"), (errno.EIO, "Input/output")],
)
def test_a_failing_disk_leaves_what_was_there_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(WriteError, match=words), written_whole(path) as part:
        part.write_text("after")
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.json"]


def test_a_network_is_saved_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    NETWORK.save(path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ImportFileError, match="the disk is full"):
        Architecture(12, 8, NETWORK.branches, base_width=3).save(path)
    assert Architecture.load(path) == NETWORK
