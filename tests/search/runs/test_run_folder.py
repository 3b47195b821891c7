"""Run folders: a beginning that was killed, results that do not parse, a log that cannot be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from latlut.errors import ImportFileError, LatlutError
from latlut.files.writing import WriteError
from latlut.search.runs.folder import RESULT, RUN, SETTINGS, begin_run, is_finished
from latlut.search.runs.listening import RunLog
from latlut.spaces import Architecture

SETS, FACTS = {"seed": 0}, {"table": "a.db"}


def begin(path: Path) -> bool:
    return begin_run(path, SETS, FACTS, dict)


def killed_before_settings(path: Path) -> None:
    (path / SETTINGS).unlink()


def killed_while_settings_were_written(path: Path) -> None:
    (path / SETTINGS).unlink()
    (path / f".{SETTINGS}.abcd.latlut-part").mkdir()
    (path / f".{SETTINGS}.abcd.latlut-part" / SETTINGS).write_text('{"se')


def power_failed_after_settings(path: Path) -> None:
    (path / RUN).write_bytes(b"")


def half_of_settings(path: Path) -> None:
    (path / SETTINGS).write_text((path / SETTINGS).read_text()[:5])


@pytest.mark.parametrize(
    "what",
    [
        killed_before_settings,
        killed_while_settings_were_written,
        power_failed_after_settings,
        half_of_settings,
    ],
)
def test_a_run_that_was_killed_while_it_began_begins_anew(tmp_path: Path, what: object) -> None:
    assert not begin(tmp_path)
    what(tmp_path)  # type: ignore[operator]
    assert not begin(tmp_path)
    assert json.loads((tmp_path / SETTINGS).read_text()) == SETS
    assert json.loads((tmp_path / RUN).read_text())["table"] == "a.db"
    assert sorted(os.listdir(tmp_path)) == [RUN, SETTINGS]
    assert begin(tmp_path)


@pytest.mark.parametrize("what", [killed_before_settings, power_failed_after_settings])
def test_a_run_with_something_in_it_is_not_begun_anew(tmp_path: Path, what: object) -> None:
    begin(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    what(tmp_path)  # type: ignore[operator]
    with pytest.raises(LatlutError, match="something else|not JSON"):
        begin(tmp_path)


@pytest.mark.parametrize("damaged", [RESULT, "student.json"])
def test_a_run_is_finished_only_when_what_it_left_can_be_read(tmp_path: Path, damaged: str) -> None:
    def read(folder: Path) -> object:
        return Architecture.load(folder / "student.json")

    begin(tmp_path)
    assert not is_finished(tmp_path, SETS, FACTS, lambda folder: None)
    for name in (RESULT, "student.json"):
        (tmp_path / name).write_text("{}")
    assert is_finished(tmp_path, SETS, FACTS, lambda folder: None)
    with pytest.raises(ImportFileError):
        read(tmp_path)
    assert not is_finished(tmp_path, SETS, FACTS, read)
    (tmp_path / damaged).write_text('{"best')
    assert not is_finished(tmp_path, SETS, FACTS, read)


def test_an_event_file_that_cannot_be_made_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(WriteError, match="tensorboard"):
        RunLog(tmp_path / "tensorboard")
