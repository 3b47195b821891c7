"""Two processes with gloo come to what one comes to with twice the batch, and go on from it.

Two processes add in another order than one. Losses, which are in single precision, stay within a
relative 1e-6 of each other over the steps here, parameters and moments of gradients within 1e-4.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed_runs
import pytest
import torch
from distributed_runs import BATCH, SPACE, STOPS
from lightning_fabric import Fabric
from small_tables import ablation_table

pytestmark = pytest.mark.slow
KINDS = tuple(STOPS)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def alone(kind: str, folder: Path, batch: int, **more: Any) -> dict[str, Any]:
    fabric = Fabric(accelerator="cpu", devices=1)
    table = folder.parent / "table.db"
    return distributed_runs.run(kind, folder, table, fabric, batch, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left, of runs of their own and of those that one process began."""
    folder = tmp_path_factory.mktemp("two")
    ablation_table(folder / "table.db", SPACE)
    for kind in KINDS:
        alone(kind, folder / f"{kind}-left-by-one", 2 * BATCH, stops=True)
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            distributed_runs.__file__, str(folder),
        ],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def of_two(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / "found-0.pt")
    return found


@pytest.fixture(scope="module")
def of_one(folder: Path) -> dict[str, Any]:
    return {kind: alone(kind, folder / f"{kind}-of-one", 2 * BATCH) for kind in KINDS}


def close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The end of a run is the same up to the order of additions."""
    count = len(found["losses"])
    assert found["losses"] == pytest.approx(expected["losses"][-count:], rel=1e-6)
    for mine, other in zip(found["records"], expected["records"], strict=True):
        assert mine.keys() == other.keys()
        for name, value in other.items():
            is_text = value is None or isinstance(value, str)
            near = value if is_text else pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True)
            assert mine[name] == near, name
    for name, state in expected["states"].items():
        for key, value in state.items():
            torch.testing.assert_close(
                found["states"][name][key], value, rtol=1e-4, atol=1e-6, msg=f"{name}.{key}"
            )


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_have_the_losses_of_one_with_twice_the_batch(
    of_one: dict[str, Any], of_two: dict[str, Any], kind: str
) -> None:
    found, expected = of_two[f"{kind} begun"]["losses"], of_one[kind]["losses"]
    assert (len(found), len(expected)) == (3, 4)
    assert found == pytest.approx(expected[:3], rel=1e-6)


def test_both_processes_have_the_same_bits_at_the_end(folder: Path, of_two: dict[str, Any]) -> None:
    other = torch.load(folder / "found-1.pt")
    for kind in KINDS:
        mine, theirs = of_two[f"{kind} ended"], other[f"{kind} ended"]
        assert repr((mine["losses"], mine["records"])) == repr(
            (theirs["losses"], theirs["records"])
        )
        for name, state in theirs["states"].items():
            assert all(torch.equal(v, mine["states"][name][key]) for key, v in state.items())


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_go_on_with_what_one_began(
    of_one: dict[str, Any], of_two: dict[str, Any], kind: str
) -> None:
    assert len(of_two[f"{kind} ended"]["losses"]) == 2
    close(of_two[f"{kind} ended"], of_one[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_one_process_goes_on_with_what_two_began(
    folder: Path, of_one: dict[str, Any], kind: str
) -> None:
    found = alone(kind, folder / f"{kind}-left-by-two", BATCH, processes=2)
    assert len(found["losses"]) == 2
    close(found, of_one[kind])
