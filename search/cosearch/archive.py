"""The archive: every epoch's derived networks with their latency and score.

Each epoch adds, per set of branches, the student's derived network and the one fitted to the
target (see ``fitting``), and the teacher's derived network. The result of a search is the
archived student of largest Target(m) within the tolerance of the target.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from latlut.errors import LatlutError
from latlut.files.writing import written_whole
from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.records import name_of
from latlut.search.derive.derive import derive, target_score
from latlut.search.derive.fitting import Fitter
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.spaces import Architecture

Scores = Mapping[tuple[int, ...], float]


@dataclass(frozen=True)
class Archived:
    """A derived network of one epoch.

    ``kind`` is ``derived``, ``fitted`` or ``teacher``; ``accuracy`` the supernet's mIoU for its
    branches at that epoch; ``score`` its Target(m), for a teacher its accuracy; ``loss`` the log
    probability given up to fit it, 0 for the others.
    """

    kind: str
    epoch: int
    scales: tuple[int, ...]
    architecture: Architecture
    latency_ms: float
    accuracy: float
    score: float
    loss: float = 0.0


@dataclass(frozen=True)
class _Stored(Archived):
    """The same in JSON, its network as a text."""

    architecture: str  # type: ignore[assignment]


class EpochNetworks(NamedTuple):
    """What one epoch adds."""

    derived: list[Archived]
    fitted: list[Archived]
    teachers: list[Archived]


class Archive:
    """All derived networks of a run; kept in ``folder`` as JSON files too, if one is given."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.items: list[Archived] = []

    def add(
        self,
        epoch: int,
        problem: SearchProblem,
        student: RelaxedArchitecture,
        teacher: RelaxedArchitecture,
        miou: Scores,
        teacher_miou: Scores,
    ) -> EpochNetworks:
        """Derive an epoch's networks and keep them."""
        found = EpochNetworks([], [], [])
        target_ms = problem.target_ms
        for scales in problem.branch_sets:
            accuracy, network = miou[scales], derive(student, scales)
            ms = problem.price(network)
            score = target_score(accuracy, ms, target_ms)
            found.derived.append(Archived("derived", epoch, scales, network, ms, accuracy, score))
            fit = Fitter(student, scales, problem.price).fit(target_ms, problem.tolerance)
            network, ms = fit.architecture, fit.latency_ms
            score = target_score(accuracy, ms, target_ms)
            found.fitted.append(
                Archived("fitted", epoch, scales, network, ms, accuracy, score, fit.loss)
            )
            accuracy, network = teacher_miou[scales], derive(teacher, scales, allow_skip=False)
            ms = problem.teacher_ms(network)
            found.teachers.append(
                Archived("teacher", epoch, scales, network, ms, accuracy, score=accuracy)
            )
        self.items += [*found.derived, *found.fitted, *found.teachers]
        return found

    def write(self) -> None:
        """Write every network that is not there yet, ``epoch-03-fitted-16+32.json``.

        Raises:
            WriteError: one cannot be written.
        """
        if self.folder is None:
            return
        for item in self.items:
            path = self.folder / f"epoch-{item.epoch:02d}-{item.kind}-{name_of(item.scales)}.json"
            text = item.architecture.to_json()
            if not _holds(path, text):
                with written_whole(path) as temporary:
                    temporary.write_text(text, encoding="utf-8")

    def student(self, target_ms: float, tolerance: float) -> Archived:
        """The student of largest Target(m) within the tolerance of the target; of equal ones the
        later, and of one epoch the derived one before the fitted one.

        Raises:
            LatlutError: no student is within the tolerance; names the nearest.
        """
        students = [item for item in self.items if item.kind != "teacher"]
        if not students:
            raise LatlutError("the archive is empty: the search phase had no epoch")
        near = [s for s in students if abs(s.latency_ms / target_ms - 1) <= tolerance]
        if not near:
            nearest = min(students, key=lambda item: abs(item.latency_ms / target_ms - 1))
            raise LatlutError(
                f"no student came within {100 * tolerance:.3g}% of {target_ms:.4g} ms; the nearest "
                f"has {nearest.latency_ms:.4g} ms: search longer, or with another target"
            )
        return max(near, key=lambda item: (item.score, item.epoch, item.kind == "derived"))

    def teacher(self) -> Archived:
        """The last epoch's teacher of largest mIoU.

        Raises:
            LatlutError: the search phase had no epoch.
        """
        teachers = [item for item in self.items if item.kind == "teacher"]
        if not teachers:
            raise LatlutError("the archive is empty: the search phase had no epoch")
        last = max(item.epoch for item in teachers)
        return max((i for i in teachers if i.epoch == last), key=lambda item: item.score)

    def to_json(self) -> str:
        """All items as one text."""
        return json.dumps(
            [asdict(item) | {"architecture": item.architecture.to_json()} for item in self.items]
        )

    def restore(self, text: str) -> None:
        """Be the archive that ``to_json`` wrote.

        Raises:
            ValueError, ImportFileError, SpecError: a text that is none.
        """
        stored = TypeAdapter(list[_Stored]).validate_json(text, strict=True)
        self.items = [
            Archived(**vars(item) | {"architecture": Architecture.from_json(item.architecture)})
            for item in stored
        ]


def _holds(path: Path, text: str) -> bool:
    """Whether a file is there and holds this very text."""
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False
