"""The archive: every epoch's derived networks with their latency and score.

Each epoch adds, per set of branches, the student's derived network and the one fitted to the
target (see ``fitting``), and the teacher's derived network. Each is scored by itself, with the
supernet's weights. The rank phase adds random and evolved networks near the target and scores all
again. The result of a search is the archived student of largest Target(m) within the tolerance of
the target, of the finalists alone where there are any.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from latlut.errors import LatlutError
from latlut.files.writing import written_whole
from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.records import name_of
from latlut.search.derive.derive import Placed, derive_placed, target_score
from latlut.search.derive.fitting import Fitter
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.spaces import Architecture

#: Kinds of networks that the rank phase adds.
RANKED_KINDS = ("random", "evolved")


@dataclass(frozen=True)
class Archived:
    """A derived network of one epoch.

    ``kind`` is ``derived``, ``fitted`` or ``teacher``, and of the rank phase ``random`` or
    ``evolved``; ``accuracy`` its inherited mIoU at that epoch (``inherited``); ``score`` its
    Target(m), for a teacher its accuracy; ``loss`` the log probability given up to fit it, 0 for
    the others; ``layers`` where it lies (``derive.Placed``); ``ranked`` its inherited mIoU after
    the rank phase's training; ``tried`` and ``trained`` its mIoU after a training of its own, of
    the first and of the last rung (``finalists``); ``latency_ms`` is None where the table cannot
    price a teacher.
    """

    kind: str
    epoch: int
    scales: tuple[int, ...]
    architecture: Architecture
    latency_ms: float | None
    accuracy: float
    score: float
    loss: float = 0.0
    layers: tuple[tuple[int, ...], ...] = ()
    ranked: float | None = None
    target_ms: float | None = None
    tried: float | None = None
    trained: float | None = None

    @property
    def ms(self) -> float:
        """Latency of a student, which always has one."""
        assert self.latency_ms is not None
        return self.latency_ms

    @property
    def placed(self) -> Placed:
        """What it inherits."""
        return Placed(self.architecture, self.layers)

    @property
    def inherited(self) -> float:
        """The inherited mIoU that counts: after the rank phase, where there is one."""
        return self.accuracy if self.ranked is None else self.ranked

    @property
    def best_accuracy(self) -> float:
        """The mIoU that it is chosen by: after its own training, where it had one."""
        return self.inherited if self.trained is None else self.trained


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
        inherited: Callable[[Placed], float],
    ) -> EpochNetworks:
        """Derive an epoch's networks and keep them.

        Args:
            inherited: the score of a discrete network with the supernet's weights.
        """
        found = EpochNetworks([], [], [])
        target_ms = problem.target_ms
        for scales in problem.branch_sets:
            placed = derive_placed(student, scales)
            accuracy, ms = inherited(placed), problem.price(placed.architecture)
            network, layers = placed.architecture, placed.layers
            score = target_score(accuracy, ms, target_ms)
            derived = Archived(
                "derived", epoch, scales, network, ms, accuracy, score, layers=layers
            )
            fit = Fitter(student, scales, problem.price).fit(target_ms, problem.tolerance)
            network, layers, ms = fit.architecture, fit.layers, fit.latency_ms
            if fit.changes:
                accuracy = inherited(Placed(network, layers))
            score = target_score(accuracy, ms, target_ms)
            fitted = Archived(
                "fitted", epoch, scales, network, ms, accuracy, score, fit.loss, layers
            )
            placed = derive_placed(teacher, scales, allow_skip=False)
            network, accuracy = placed.architecture, inherited(placed)
            taught = Archived(
                "teacher", epoch, scales, network, problem.teacher_ms(network), accuracy,
                score=accuracy, layers=placed.layers,
            )  # fmt: skip
            for items, item in zip(found, (derived, fitted, taught), strict=True):
                items.append(item)
        self.items += [*found.derived, *found.fitted, *found.teachers]
        return found

    def write(self) -> None:
        """Write every network that is not there yet, ``epoch-03-fitted-16+32.json``; those of the
        rank phase have a number, ``rank-061-evolved-16+32.json``.

        Raises:
            WriteError: one cannot be written.
        """
        if self.folder is None:
            return
        for number, item in enumerate(self.items):
            path = self.folder / f"{_name(item, number)}.json"
            text = item.architecture.to_json()
            if not _holds(path, text):
                with written_whole(path) as temporary:
                    temporary.write_text(text, encoding="utf-8")

    def candidates(self, target_ms: float, tolerance: float) -> list[Archived]:
        """The students within the tolerance of a target; the ranked ones alone, if any is."""
        students = [
            item
            for item in self.items
            if item.kind != "teacher" and abs(item.ms / target_ms - 1) <= tolerance
        ]
        return [item for item in students if item.ranked is not None] or students

    def trained(self, target_ms: float, tolerance: float) -> list[Archived]:
        """Those of ``candidates`` that had a training of their own, each network once."""
        near = self.candidates(target_ms, tolerance)
        return list({i.architecture: i for i in near if i.trained is not None}.values())

    def near(self, target_ms: float, tolerance: float) -> list[Archived]:
        """The students that can be chosen for a target: those with a training of their own, if any
        has; else all ``candidates``."""
        return self.trained(target_ms, tolerance) or self.candidates(target_ms, tolerance)

    def student(self, target_ms: float, tolerance: float) -> Archived:
        """The student of largest Target(m) within the tolerance of the target; of equal ones the
        later, and of one epoch the derived one before the fitted one.

        Raises:
            LatlutError: no student is within the tolerance; names the nearest.
        """
        students = [item for item in self.items if item.kind != "teacher"]
        if not students:
            raise LatlutError("the archive is empty: the search phase had no epoch")
        near = self.near(target_ms, tolerance)
        if not near:
            nearest = min(students, key=lambda item: abs(item.ms / target_ms - 1))
            raise LatlutError(
                f"no student came within {100 * tolerance:.3g}% of {target_ms:.4g} ms; the nearest "
                f"has {nearest.ms:.4g} ms: search longer, or with another target"
            )

        def rank(item: Archived) -> tuple[float, int, bool]:
            score = target_score(item.best_accuracy, item.ms, target_ms)
            return score, item.epoch, item.kind == "derived"

        return max(near, key=rank)

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


def _name(item: Archived, number: int) -> str:
    place = f"rank-{number:03d}" if item.kind in RANKED_KINDS else f"epoch-{item.epoch + 1:02d}"
    return f"{place}-{item.kind}-{name_of(item.scales)}"


def _holds(path: Path, text: str) -> bool:
    """Whether a file is there and holds this very text."""
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False
