"""The folder of a search: its settings, where it ran, and what it found.

    settings.json    all settings, resolved        run.json       table, data, environment, version
    checkpoints/     last.pt and previous.pt       archive/       every epoch's derived networks
    trajectory.csv   one row per epoch             tensorboard/   scalars and figures
    student.json, teacher.json, result.json        what the search found

The same command goes on with a run that was stopped; a folder of other settings or of another
table is refused, so that no run is half of one and half of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlut.search.cosearch.archive import Archived
from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.records import EpochRecord, name_of, write_trajectory
from latlut.search.cosearch.settings import SearchSettings
from latlut.search.runs.folder import begin_run, write_json
from latlut.timestamps import now_text
from latlut.version import __version__


@dataclass(frozen=True)
class Found:
    """The result of a search: the student at the target, and the teacher."""

    target_ms: float
    student: Archived
    teacher: Archived


class RunFolder:
    """A run's folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def tensorboard(self) -> Path:
        """Where event files go."""
        return self.path / "tensorboard"

    def begin(
        self,
        settings: SearchSettings,
        problem: SearchProblem,
        data_name: str,
        environment: Mapping[str, object],
    ) -> bool:
        """Write what the run is, or check that the folder is of this very run.

        Returns:
            Whether there is a run to go on with.

        Raises:
            LatlutError: the folder is of a run with other settings, another table or other data,
                or cannot be written.
        """
        facts = {
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
        remarks = {
            "started_at": now_text(),
            "seed": settings.seed,
            "latlut_version": __version__,
            "environment": dict(environment),
        }
        return begin_run(self.path, settings.to_dict(), facts, remarks)

    def is_finished(self, settings: SearchSettings) -> bool:
        """Whether the folder holds a finished search with these settings. The table is not asked.

        Raises:
            LatlutError: it holds a finished search with other settings.
        """
        is_done = (self.path / "result.json").exists()
        return is_done and begin_run(self.path, settings.to_dict(), {}, {})

    def write_epoch(self, records: list[EpochRecord]) -> None:
        """Write the trajectory so far."""
        write_trajectory(self.path / "trajectory.csv", records)

    def finish(self, found: Found, problem: SearchProblem, records: list[EpochRecord]) -> None:
        """Write the networks that were found, and their figures."""
        found.student.architecture.save(self.path / "student.json")
        found.teacher.architecture.save(self.path / "teacher.json")
        write_json(
            self.path / "result.json",
            {
                "target_ms": problem.target_ms,
                "tolerance": problem.tolerance,
                "seconds": sum(record.seconds for record in records),
                "finished_at": now_text(),
                **{role: _facts(getattr(found, role)) for role in ("student", "teacher")},
            },
        )


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
