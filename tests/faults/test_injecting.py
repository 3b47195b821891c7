"""The injector itself: it counts what changes files, and each fault does what its name says."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from faults.injecting import Fault, Injector, instants

CALL = "faults.test_injecting:change"


def change(arguments: Sequence[str]) -> None:
    """Eight changes below the current folder."""
    os.mkdir("made")  # 1
    descriptor = os.open("made/a", os.O_CREAT | os.O_WRONLY)  # 2
    os.write(descriptor, b"12345678")  # 3
    os.fsync(descriptor)  # 4
    os.link("made/a", "made/b")  # 5
    os.replace("made/a", "made/c")  # 6
    os.unlink("made/b")  # 7
    os.ftruncate(descriptor, 4)  # 8
    Path(arguments[0], "elsewhere").write_text("not counted")


@pytest.fixture(scope="module")
def injector() -> Iterator[Injector]:
    with Injector() as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "watched").mkdir()
    return tmp_path / "watched"


def test_changes_are_counted_below_the_folder_alone(injector: Injector, folder: Path) -> None:
    found = injector.run([folder.parent], folder, call=CALL)
    assert (found.code, found.calls, found.hits) == (0, 8, 0)
    assert (folder / "made" / "c").read_bytes() == b"1234"


@pytest.mark.parametrize(
    ("fault", "at", "left"),
    [
        (Fault.KILL, 3, {"a": b""}),
        (Fault.TORN, 3, {"a": b"1234"}),
        (Fault.KILL, 6, {"a": b"12345678", "b": b"12345678"}),
        (Fault.TORN, 6, {"a": b"12345678", "b": b"12345678"}),
    ],
)
def test_a_kill_leaves_what_was_done_before_it(
    injector: Injector, folder: Path, fault: Fault, at: int, left: dict[str, bytes]
) -> None:
    found = injector.run([folder.parent], folder, call=CALL, fault=fault, at=at)
    assert found.was_killed
    assert found.calls == at and found.hits == 1
    assert {path.name: path.read_bytes() for path in (folder / "made").iterdir()} == left


@pytest.mark.parametrize(
    ("fault", "at", "words"),
    [
        (Fault.FULL, 3, "No space left on device"),
        (Fault.FULL, 4, "No space left on device"),  # by the link: flushing takes no room
        (Fault.READ_ONLY, 4, "Read-only file system"),
        (Fault.FAILING, 8, "Input/output error"),
        (Fault.INTERRUPT, 3, "KeyboardInterrupt"),
    ],
)
def test_a_failing_disk_is_an_error_of_the_command(
    injector: Injector, folder: Path, fault: Fault, at: int, words: str
) -> None:
    found = injector.run([folder.parent], folder, call=CALL, fault=fault, at=at)
    assert found.code == 1 and found.hits
    assert words in found.output and found.has_traceback


def test_a_sweep_begins_each_case_from_the_same_files(injector: Injector, folder: Path) -> None:
    (folder / "before").write_text("there")
    faults = (Fault.KILL, Fault.FULL)
    seen = []
    for fault, at, found in injector.sweep([folder.parent], folder, faults, 16, call=CALL):
        assert (folder / "before").read_text() == "there"
        assert found.was_killed == (fault is Fault.KILL)
        seen.append((fault, at))
    assert seen == [(fault, at) for fault in faults for at in range(1, 9)]
    assert [path.name for path in folder.iterdir()] == ["before"]


def test_instants_are_seeded_and_hold_both_ends() -> None:
    assert instants(3, 10, seed=0) == [1, 2, 3]
    some = instants(1000, 10, seed=1)
    assert len(some) == 10 and some[0] == 1 and some[-1] == 1000
    assert some == instants(1000, 10, seed=1) != instants(1000, 10, seed=2)
