"""The paper's ablation as runs: what is searched, which of its networks is trained, and with whom.

    one-branch        searched at a fixed width, one branch      trained alone
    two-branches      searched at a fixed width, two branches    trained alone
    student           searched widths, teacher co-searched       trained alone
    teacher           the teacher of that search                 trained alone
    pruned-teacher    the teacher's cells at the narrowest width taught by that teacher
    distilled         the student again: FasterSeg               taught by that teacher

The three searches have the same target, so that accuracies are compared at one latency. A target
that a search of fixed width or one branch cannot reach is moved to the nearest that it can.

Source: FasterSeg, Sec. 4.3 and Table 3. The paper's rows differ in latency (177.8, 119.9 and 163.9
FPS), and it trains its teacher without giving its score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from latlut.errors import SpecError
from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.settings import SearchSettings
from latlut.search.train.settings import TrainSettings
from latlut.spaces import Architecture, Branch
from latlut.table.table import LatencyTable

#: The width of the paper's searches of fixed width, twelfths; taken where the space has it.
PAPER_FIXED_WIDTH = 8

#: The search whose student and teacher the last four rows are.
FULL = "full"


@dataclass(frozen=True)
class Strategy:
    """One row of the ablation: a network, and how it is trained."""

    name: str
    """Also that of its training's folder."""
    title: str
    """For people."""
    search: str
    """Name of the search that found the network."""
    network: Literal["student", "teacher", "pruned"] = "student"
    """Its student, its teacher, or that teacher pruned."""
    is_taught: bool = False
    """Whether the search's trained teacher teaches it."""


TEACHER = Strategy("teacher", "teacher", FULL, "teacher")
#: In the order of Table 3; a teacher comes before whom it teaches.
STRATEGIES: tuple[Strategy, ...] = (
    Strategy("one-branch", "fixed width, one branch", "one-branch"),
    Strategy("two-branches", "fixed width, two branches", "two-branches"),
    Strategy("student", "searched student", FULL),
    TEACHER,
    Strategy("pruned-teacher", "teacher pruned, distilled", FULL, "pruned", is_taught=True),
    Strategy("distilled", "searched student, distilled", FULL, is_taught=True),
)


@dataclass(frozen=True)
class PlannedSearch:
    """One of the three searches."""

    name: str
    """``one-branch``, ``two-branches`` or ``full``."""
    settings: SearchSettings
    """With branches, widths and target; the seed is still to be set."""
    target_ms: float
    """Latency to hit. is_moved: whether the common one is out of its reach."""
    is_moved: bool
    reachable_ms: tuple[float, float]
    """(fastest, slowest) network of its space."""

    def seeded(self, seed: int) -> SearchSettings:
        """The settings with a seed."""
        return self.settings.model_copy(update={"seed": seed})


@dataclass(frozen=True)
class AblationPlan:
    """What an ablation compares, before anything is searched."""

    searches: tuple[PlannedSearch, ...]
    """The three, the full one last."""
    target_ms: float
    """The common target."""
    fixed_width: int
    narrowest_width: int
    end_width: int
    """``fixed_width``, ``narrowest_width``, ``end_width``: twelfths; of the searches of fixed
    width, of the pruned teacher's cells, of the students' and the pruned teacher's stem and head.
    """
    input_size: tuple[int, int]
    """(height, width) in pixels that latencies, MACs and parameters are of."""
    batch: int
    """Images per inference."""
    space: Mapping[str, Any]
    """Of the full search, JSON-able."""

    def search(self, name: str) -> PlannedSearch:
        """The search of that name."""
        return next(item for item in self.searches if item.name == name)

    def network(self, strategy: Strategy, found: Path) -> Architecture:
        """The strategy's network, from the folder of its finished search.

        Raises:
            ImportFileError: the search's networks cannot be read.
        """
        if strategy.network == "student":
            return Architecture.load(found / "student.json")
        teacher = Architecture.load(found / "teacher.json")
        if strategy.network == "teacher":
            return teacher
        return pruned_teacher(teacher, self.narrowest_width, self.end_width)


def plan_ablation(
    table: LatencyTable, settings: SearchSettings, fixed_width: int | None = None
) -> AblationPlan:
    """The three searches, with one target where all can reach it.

    Args:
        table: prices networks.
        settings: of the full search. Its target is that of all; without one it is the mean latency
            of random networks of the full search's space.
        fixed_width: twelfths; by default 8 where it is searched, as in the paper, else the widest
            searched below 12, else 12.

    Raises:
        SpecError: settings that leave nothing to compare (one branch, a single width), a fixed
            width that the space lacks, a target that the full search cannot reach.
        MissingEntryError: the table lacks entries of a search; lists them.
        TableError: the table was not made from a search space.
    """
    if settings.space.branches == 1:
        raise SpecError("an ablation compares one branch with two: leave space.branches out")
    full = _problem(table, settings, branches=2)
    widths = full.student_widths
    if len(widths) == 1:
        raise SpecError(
            f"an ablation compares searched widths with a fixed one, and {widths[0]} is the only "
            f"width there is: take a table of several widths, or set space.widths to several"
        )
    width = _fixed_width(widths) if fixed_width is None else fixed_width
    searches = [
        _planned("one-branch", table, settings, full.target_ms, branches=1, widths=(width,)),
        _planned("two-branches", table, settings, full.target_ms, branches=2, widths=(width,)),
        _planned(FULL, table, settings, full.target_ms, branches=2),
    ]
    return AblationPlan(
        tuple(searches),
        full.target_ms,
        width,
        min(widths),
        full.student_end,
        full.input_size,
        full.batch,
        full.space.to_dict(),
    )


def pruned_teacher(teacher: Architecture, width: int, end_width: int) -> Architecture:
    """The teacher's operators and downsampling positions, every cell at one width.

    Args:
        teacher: a derived network.
        width: of all cells but the last of each branch, twelfths.
        end_width: of stem, head and the last cells, twelfths.

    Raises:
        SpecError: a width that gives part of a channel.

    Source: FasterSeg, Sec. 4.3 ("selecting the slimmest expansion ratio"); the published pruned
    teacher has cells at 4/12, stem and head at 8/12.
    """
    branches = []
    for branch in teacher.branches:
        *cells, last = branch.cells
        slim = [replace(cell, width=width) for cell in cells]
        branches.append(Branch(branch.scale, (*slim, replace(last, width=end_width))))
    return replace(teacher, stem_width=end_width, head_width=end_width, branches=tuple(branches))


def ablation_settings(
    search: SearchSettings, training: TrainSettings, fixed_width: int
) -> dict[str, Any]:
    """What must be the same when an ablation goes on: all but the seeds, JSON-able."""
    groups = {"search": search.to_dict(), "training": training.to_dict()}
    unseeded = {
        group: {name: value for name, value in values.items() if name != "seed"}
        for group, values in groups.items()
    }
    return {**unseeded, "fixed_width": fixed_width}


def _fixed_width(widths: tuple[int, ...]) -> int:
    if PAPER_FIXED_WIDTH in widths:
        return PAPER_FIXED_WIDTH
    return max((width for width in widths if width < 12), default=max(widths))


def _problem(table: LatencyTable, settings: SearchSettings, **space: object) -> SearchProblem:
    return SearchProblem(table, settings.space.model_copy(update=space), settings.latency)


def _planned(
    name: str, table: LatencyTable, settings: SearchSettings, wanted_ms: float, **space: object
) -> PlannedSearch:
    """The search in a part of the space, its target the wanted one or the nearest within reach."""
    anywhere = settings.model_copy(
        update={"latency": settings.latency.model_copy(update={"target_ms": None})}
    )
    reach = _problem(table, anywhere, **space).reach
    target_ms = min(max(wanted_ms, reach.fastest_ms), reach.slowest_ms)
    is_moved = abs(target_ms / wanted_ms - 1) > settings.latency.tolerance
    aimed = settings.model_copy(
        update={
            "space": settings.space.model_copy(update=space),
            "latency": settings.latency.model_copy(update={"target_ms": target_ms}),
        }
    )
    return PlannedSearch(name, aimed, target_ms, is_moved, (reach.fastest_ms, reach.slowest_ms))
