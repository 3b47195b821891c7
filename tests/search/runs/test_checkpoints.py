"""Checkpoints survive crashes, full disks and foreign files."""

from __future__ import annotations

import os
import pickle
import signal
import zipfile
from pathlib import Path

import pytest
import torch

from latlut.search.runs import checkpoints
from latlut.search.runs.checkpoints import (
    LAST,
    PREVIOUS,
    CheckpointError,
    last_checkpoint,
    load_checkpoint,
    remove_checkpoints,
    restoring,
    save_checkpoint,
)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = {"weights": {"a": torch.randn(3, 4)}, "epoch": 3, "history": [{"loss": 0.5}]}
    path = save_checkpoint(tmp_path / "run", "search", state)
    found = load_checkpoint(path, "search")
    assert torch.equal(found["weights"]["a"], state["weights"]["a"])
    assert (found["epoch"], found["history"]) == (3, [{"loss": 0.5}])


def test_the_one_before_stays_beside_the_last(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path, "search", {"epoch": epoch})
    assert load_checkpoint(tmp_path / LAST, "search")["epoch"] == 3
    assert load_checkpoint(tmp_path / PREVIOUS, "search")["epoch"] == 2
    (tmp_path / LAST).unlink()  # killed between two renames
    found = last_checkpoint(tmp_path)
    assert found is not None and found.name == PREVIOUS


def test_a_full_disk_leaves_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, "search", {"epoch": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(tmp_path, "search", {"epoch": 2})
    assert load_checkpoint(tmp_path / LAST, "search")["epoch"] == 1
    assert sorted(os.listdir(tmp_path)) == [LAST]


def test_the_systems_own_reason_is_told_not_torchs() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(OSError, match="No space left"):
        checkpoints._write({"weights": torch.zeros(1 << 20)}, full)


def test_ctrl_c_while_it_is_written_is_ctrl_c_and_the_checkpoint_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, "search", {"epoch": 1})
    flush = os.fsync

    def interrupted(descriptor: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        flush(descriptor)

    monkeypatch.setattr(checkpoints.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, "search", {"epoch": 2})
    assert load_checkpoint(tmp_path / LAST, "search")["epoch"] == 2
    assert load_checkpoint(tmp_path / PREVIOUS, "search")["epoch"] == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, "search", {"epoch": 1})
    with pytest.raises(CheckpointError, match="of a search, not of a train"):
        load_checkpoint(path, "train")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path, "search")
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="something else"):
        load_checkpoint(path, "search")
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "none.pt", "search")


@pytest.mark.parametrize("epoch", [True, -1, 1.5, "3", None, 10**30, torch.tensor(3)])
def test_a_value_of_another_type_is_refused(tmp_path: Path, epoch: object) -> None:
    path = save_checkpoint(tmp_path, "search", {"epoch": epoch, "state": {}})
    with pytest.raises(CheckpointError, match="its epoch is damaged or missing"):
        load_checkpoint(path, "search", {"state": dict, "epoch": int})
    with pytest.raises(CheckpointError, match="its optimizer is damaged or missing"):
        load_checkpoint(path, "search", {"optimizer": dict})


@pytest.mark.parametrize(
    "state", [{}, {"weight": 3}, {"weight": torch.zeros(9), "bias": torch.zeros(1)}, {5: "x"}]
)
def test_parts_that_do_not_fit_are_the_files_fault(
    tmp_path: Path, state: dict[object, object]
) -> None:
    message = r"last\.pt does not hold what this run needs"
    with pytest.raises(CheckpointError, match=message), restoring(tmp_path / LAST):
        torch.nn.Linear(2, 1).load_state_dict(state)  # type: ignore[arg-type]


def test_a_checkpoint_that_unpacks_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, "search", {"weights": torch.zeros(100_000)})
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointError, match="that unpack to"):
        load_checkpoint(path, "search")


class Malicious:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("pwned",)


def test_a_file_with_code_in_it_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / LAST
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(CheckpointError):
        load_checkpoint(path, "search")
    assert not (tmp_path / "pwned").exists()


def test_checkpoints_of_a_run_that_has_ended_can_be_removed(tmp_path: Path) -> None:
    for epoch in (1, 2):
        save_checkpoint(tmp_path / "checkpoints", "search", {"epoch": epoch})
    (tmp_path / "result.json").write_text("{}")
    held = sum(path.stat().st_size for path in (tmp_path / "checkpoints").iterdir())
    assert remove_checkpoints(tmp_path) == held > 0
    assert last_checkpoint(tmp_path / "checkpoints") is None
    assert (tmp_path / "result.json").exists()
    assert remove_checkpoints(tmp_path) == 0
