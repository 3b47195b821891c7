"""The script for the first GPU at hand, where there is none; and what a GPU alone can show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import first_contact
import pytest
from checkout import ROOT

from latlut.machine.gpus import gpu_absence_reason

SCRIPT = Path(__file__).with_name("first_contact.py")


def _run(*arguments: str) -> tuple[int, list[dict[str, object]]]:
    answer = subprocess.run(
        [sys.executable, SCRIPT, *arguments], cwd=ROOT, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return answer.returncode, [json.loads(line) for line in answer.stdout.splitlines()]


def test_without_a_gpu_one_line_says_so() -> None:
    reason = gpu_absence_reason()
    if reason is None:
        pytest.skip("a GPU is here")
    assert _run() == (first_contact.NO_GPU, [{"check": "gpu", "missing": reason}])


def test_every_check_has_a_method_that_says_what_it_asks() -> None:
    for name in first_contact.CHECKS:
        assert getattr(first_contact.Contact, name).__doc__


def test_a_check_that_fails_is_a_line_and_stops_nothing(capsys: pytest.CaptureFixture) -> None:
    def fails() -> dict[str, object]:
        raise RuntimeError("no answer")

    assert not first_contact.guarded("ticks", fails)
    assert first_contact.guarded("floor", lambda: {"warm_us": 2.0})
    failed, floor = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert failed["failed"] == "RuntimeError: no answer"
    assert floor == {"check": "floor", "warm_us": 2.0}


@pytest.mark.gpu
def test_on_a_gpu_every_check_runs() -> None:
    if (reason := gpu_absence_reason()) is not None:
        pytest.skip(reason)
    code, lines = _run()
    if code == first_contact.NO_GPU:
        pytest.skip(str(lines[0]["missing"]))
    assert code == 0
    assert [line["check"] for line in lines] == list(first_contact.CHECKS)
