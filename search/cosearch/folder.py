"""The folder of a search: what it is of, and what was found.

settings.json, run.json        what the run is (``runs.folder``): table, data, environment
checkpoints/                   last.pt and previous.pt, to go on with
archive/                       every epoch's derived networks
trajectory.csv, tensorboard/   how it went
student.json, teacher.json     what was found; result.json has its figures
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlut.search.cosearch.archive import Archived
from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.records import EpochRecord, name_of
from latlut.search.cosearch.state import SearchState
from latlut.search.runs.folder import RESULT, write_csv, write_json
from latlut.spaces import Architecture
from latlut.timestamps import now_text

ROLES = ("student", "teacher")


@dataclass(frozen=True)
class Found:
    """The result of a search."""

    folder: Path
    """Of the run. table: the file that priced networks."""
    table: Path
    target_ms: float
    """Latency to hit. student: the network at the target. teacher: its teacher."""
    student: Archived
    teacher: Archived
    records: tuple[EpochRecord, ...]
    """Of all epochs."""


def search_facts(problem: SearchProblem, data_name: str) -> dict[str, Any]:
    """What must be the same when a run goes on, besides its settings."""
    return {
        "table": str(problem.table.path),
        "table_identity": problem.table.identity.to_dict(),
        "input_size": list(problem.input_size),
        "batch": problem.batch,
        "space": problem.space.to_dict(),
        "target_ms": problem.target_ms,
        "reachable_ms": [problem.reach.fastest_ms, problem.reach.slowest_ms],
        "latency_weights": list(problem.latency.weights),
        "data": data_name,
    }


def write_progress(search: SearchState) -> None:
    """Write the trajectory and the archive as they stand.

    Raises:
        WriteError: they cannot be written.
    """
    write_csv(search.folder / "trajectory.csv", [item.flat() for item in search.records])
    search.archive.write()


def finish_search(found: Found, tolerance: float) -> None:
    """Write the networks that were found, and their figures.

    Args:
        found: all of it. tolerance: relative distance from the target that the student may have.

    Raises:
        LatlutError: they cannot be written.
    """
    roles = dict(zip(ROLES, (found.student, found.teacher), strict=True))
    for role, item in roles.items():
        item.architecture.save(found.folder / f"{role}.json")
    write_json(
        found.folder / RESULT,
        {
            "target_ms": found.target_ms,
            "tolerance": tolerance,
            "seconds": sum(record.seconds for record in found.records),
            "finished_at": now_text(),
            **{role: _facts(item) for role, item in roles.items()},
        },
    )


def read_networks(folder: Path) -> tuple[Architecture, ...]:
    """The student and the teacher that a finished search left.

    Raises:
        LatlutError: one is missing or cannot be read.
    """
    return tuple(Architecture.load(folder / f"{role}.json") for role in ROLES)


def _facts(item: Archived) -> dict[str, Any]:
    return {
        "branches": name_of(item.scales),
        "epoch": item.epoch,
        "kind": item.kind,
        "latency_ms": item.latency_ms,
        "supernet_miou": item.accuracy,
        "score": item.score,
        "log_probability_given_up": item.loss,
    }
