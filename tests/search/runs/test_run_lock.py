"""A run's folder is one process's at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

from latlut.errors import LatlutError
from latlut.search.runs.lock import run_lock

HOLDS = """
import sys
from pathlib import Path
from latlut.search.runs.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert other.stdin is not None and other.stdout is not None
    try:
        assert other.stdout.readline() == "held\n"
        refusal = "another process is going on with this run"
        with pytest.raises(LatlutError, match=refusal), run_lock(folder):
            pass
    finally:
        other.kill()
        other.communicate()
    with run_lock(folder):  # however it ended
        (folder / "settings.json").write_text("{}")
    assert folder.exists()


def test_a_folder_that_nothing_was_written_to_is_gone_again(tmp_path: Path) -> None:
    with run_lock(tmp_path / "a" / "run"):
        assert (tmp_path / "a" / "run").is_dir()
    assert not (tmp_path / "a" / "run").exists()
    (tmp_path / "own").mkdir()
    with run_lock(tmp_path / "own"):
        pass
    assert (tmp_path / "own").is_dir()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refusal = "cannot write the run's folder"
    with pytest.raises(LatlutError, match=refusal), run_lock(tmp_path / "file" / "run"):
        pass
