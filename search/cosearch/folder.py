"""The folder of a search: what it is of, and what was found.

settings.json, run.json        what the run is (``runs.folder``): table, data, environment
checkpoints/                   last.pt and previous.pt, to go on with
archive/                       every epoch's derived networks
trajectory.csv, tensorboard/   how it went
student.json, teacher.json     what was found; result.json has its figures
front/                         of several targets, the student of each, 7.5ms.json
finalists/                     models of the networks that had a whole training, by number
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from latlut.pricing.estimator import estimate
from latlut.search.cosearch.archive import Archived
from latlut.search.cosearch.finalists import FINALISTS
from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.records import EpochRecord, name_of
from latlut.search.cosearch.settings import SearchSettings
from latlut.search.cosearch.state import SearchState
from latlut.search.cosearch.worth import Finalists, Worth, worth_of
from latlut.search.runs.folder import RESULT, SETTINGS, read_json, write_csv, write_json
from latlut.spaces import Architecture
from latlut.timestamps import now_text

ROLES = ("student", "teacher")
FRONT = "front"


@dataclass(frozen=True)
class Member:
    """One network of the front."""

    target_ms: float
    """Latency that it was to hit. student: the network."""
    student: Archived
    worth: Worth | None
    """Against random networks of equal latency; None without a rank phase."""
    finalists: Finalists | None
    """Among those that had a training of their own; None where none had."""


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
    members: tuple[Member, ...]
    """The front, by latency; of a single target the student alone."""
    students: tuple[Archived, ...]
    """All that the search has seen."""
    unreachable_ms: tuple[float, ...]
    """Targets that no network of the space or none that was seen can meet."""
    predicted_ms: Mapping[Architecture, float] = field(default_factory=dict)
    """How much of networks' latencies comes from predicted entries, where some does."""

    @property
    def worth(self) -> Worth | None:
        """Of the student."""
        return self._main.worth

    @property
    def finalists(self) -> Finalists | None:
        """Of the student."""
        return self._main.finalists

    @property
    def _main(self) -> Member:
        return next(item for item in self.members if item.target_ms == self.target_ms)

    @property
    def last_derived(self) -> tuple[float, float] | None:
        """Milliseconds of the search phase's last derived student of largest score, and of what
        was fitted from it; None without such an epoch."""
        epochs = [record for record in self.records if record.phase == "search"]
        if not epochs:
            return None
        best = max(epochs[-1].scores, key=lambda name: epochs[-1].scores[name])
        return epochs[-1].derived_ms[best], epochs[-1].fitted_ms[best]


def found_in(search: SearchState) -> Found:
    """What a search that has run comes to.

    Raises:
        LatlutError: no student near the target.
    """
    problem, archive = search.problem, search.archive
    images = 0 if search.settings.rank is None else search.scorer().images
    judges = _finalists_judges(search)
    members, missed = [], list(problem.unreachable_ms)
    for target_ms in problem.targets_ms:
        if target_ms != problem.target_ms and not archive.near(target_ms, problem.tolerance):
            missed.append(target_ms)
            continue
        student = archive.student(target_ms, problem.tolerance)
        worth = worth_of(student, archive, target_ms, problem.tolerance, images)
        finalists = Finalists.of(archive.candidates(target_ms, problem.tolerance), judges)
        members.append(Member(target_ms, student, worth, finalists))
    main = next(item for item in members if item.target_ms == problem.target_ms)
    teacher = archive.teacher()
    networks = [item.architecture for item in (*(m.student for m in members), teacher)]
    return Found(
        search.folder,
        problem.table.path,
        problem.target_ms,
        main.student,
        teacher,
        tuple(search.records),
        tuple(members),
        tuple(item for item in archive.items if item.kind != "teacher"),
        tuple(sorted(missed)),
        _predicted_ms(problem, networks),
    )


def _finalists_judges(search: SearchState) -> int:
    """Validation images that the finalists were judged on."""
    own, count = search.settings.finalists, len(search.data.val)
    return count if own is None or own.images is None else min(own.images, count)


def _predicted_ms(
    problem: SearchProblem, networks: Sequence[Architecture]
) -> dict[Architecture, float]:
    """How much of the networks' latencies by the table is predicted, milliseconds."""
    if not problem.table.predicted_count:
        return {}
    where = problem.input_size, problem.batch
    return {
        network: estimate(network.op_specs(*where), problem.table, allow_missing=True).predicted_ms
        for network in networks
    }


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
        "latency_weights": (
            "gradient" if problem.settings.weights == "gradient" else list(problem.latency.weights)
        ),
        "data": data_name,
    }


def changeable(folder: Path, settings: SearchSettings) -> tuple[str, ...]:
    """Names of the settings that may still change when the search in a folder goes on: those of the
    finalists before the first of them, and then their number, upwards."""
    if not (folder / FINALISTS).exists():
        return ("finalists",)
    before, own = read_json(folder / SETTINGS).get("finalists"), settings.finalists
    trained = before.get("networks") if isinstance(before, dict) else None
    is_more = own is not None and isinstance(trained, int) and own.networks >= trained
    return ("finalists.networks",) if is_more else ()


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
    if len(found.members) > 1 or found.unreachable_ms:
        (found.folder / FRONT).mkdir(exist_ok=True)
        for member in found.members:
            member.student.architecture.save(front_file(found.folder, member))
    derived = found.last_derived
    write_json(
        found.folder / RESULT,
        {
            "target_ms": found.target_ms,
            "derived_ms": None if derived is None else derived[0],
            "fitted_ms": None if derived is None else derived[1],
            "against_random": None if found.worth is None else asdict(found.worth),
            "finalists": None if found.finalists is None else asdict(found.finalists),
            "front": [
                {
                    "target_ms": member.target_ms,
                    **_facts(member.student, found),
                    "against_random": None if member.worth is None else asdict(member.worth),
                    "finalists": None if member.finalists is None else asdict(member.finalists),
                }
                for member in found.members
            ],
            "unreachable_ms": list(found.unreachable_ms),
            "tolerance": tolerance,
            "seconds": sum(record.seconds for record in found.records),
            "finished_at": now_text(),
            **{role: _facts(item, found) for role, item in roles.items()},
        },
    )


def front_file(folder: Path, member: Member) -> Path:
    """Where a member of the front lies, ``front/7.5ms.json``."""
    return folder / FRONT / f"{member.target_ms:.4g}ms.json"


def read_networks(folder: Path) -> tuple[Architecture, ...]:
    """The student and the teacher that a finished search left.

    Raises:
        LatlutError: one is missing or cannot be read.
    """
    return tuple(Architecture.load(folder / f"{role}.json") for role in ROLES)


def _facts(item: Archived, found: Found) -> dict[str, Any]:
    predicted_ms = found.predicted_ms.get(item.architecture, 0.0)
    return {
        "branches": name_of(item.scales),
        "epoch": item.epoch + 1,
        "kind": item.kind,
        "latency_ms": item.latency_ms,
        "predicted_ms": None if item.latency_ms is None else predicted_ms,
        "supernet_miou": item.inherited,
        "tried_miou": item.tried,
        "trained_miou": item.trained,
        "score": item.score,
        "log_probability_given_up": item.loss,
    }
