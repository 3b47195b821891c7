"""The finalists: networks near each target that are trained from scratch; the best trained wins.

Inherited scores come from weights that all networks share, and do not order networks on every data
set (docs/results, "On photographs"). A training of its own asks each network itself, and a short
one says much already. So there are two rungs: ``networks * reduction`` of each target are trained
for ``1 / reduction`` of the schedule, and the best ``networks`` of them for all of it. All are
trained with one seed: they see the same crops in the same order.

The first rung takes in turn the best left by inherited score, the best of those that were not
evolved, which are drawn independently of each other, and the best that the search phase derived or
fitted, by its own scores. Any two differ in at least half of their cells, as long as there are such
networks: relatives would say the same thing twice.

Source: successive halving: Jamieson and Talwalkar, Non-stochastic Best Arm Identification, 2016;
here with two rungs.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple

from latlut.search.cosearch.archive import RANKED_KINDS, Archived
from latlut.search.cosearch.records import EpochRecord
from latlut.search.cosearch.state import SearchState
from latlut.search.derive.derive import target_score
from latlut.search.networks.network import trainable
from latlut.search.runs.checkpoints import CHECKPOINTS
from latlut.search.runs.processes import on_first
from latlut.search.train.settings import ScheduleSettings, TrainDataSettings, TrainSettings
from latlut.search.train.training import Training
from latlut.spaces import Architecture

#: Folder of the finalists' models within the run's.
FINALISTS = "finalists"
#: Two finalists share at most so many of their cells.
_LIKENESS = 0.5


class Trial(NamedTuple):
    """One training: the network, the target that it is near, and which share of the schedule."""

    target_ms: float
    network: Archived
    share: float


def next_trial(search: SearchState) -> Trial | None:
    """What is trained next; None where everything is. It follows from the archive alone.

    A larger number of finalists later adds to the first rung and goes on from there.
    """
    settings = search.settings.finalists
    if settings is None:
        return None
    if settings.reduction > 1:
        for target_ms, item in first_rung(search):
            if item.tried is None:
                return Trial(target_ms, item, 1 / settings.reduction)
    for target_ms, item in last_rung(search):
        if item.trained is None:
            return Trial(target_ms, item, 1.0)
    return None


def trials_left(search: SearchState) -> int:
    """How many trainings there are still to be; where the first rung is not complete, at most."""
    settings = search.settings.finalists
    if settings is None:
        return 0
    first, targets = first_rung(search), len(search.problem.targets_ms)
    untried = sum(item.tried is None for _, item in first)
    if settings.reduction == 1 or not untried:
        return sum(item.trained is None for _, item in last_rung(search))
    return untried + min(len(first), targets * settings.networks)


def first_rung(search: SearchState) -> list[tuple[float, Archived]]:
    """Targets and the networks that start: the first of each target, then the second.

    They follow from the scores of the phases before alone, so that the list is the same whatever
    was trained already, and a longer one starts with a shorter one.
    """
    settings = search.settings.finalists
    assert settings is not None
    chosen = []
    for target_ms in search.problem.targets_ms:
        near = search.archive.candidates(target_ms, search.problem.tolerance)
        found = _unlike(near, target_ms, settings.networks * settings.reduction)
        chosen.append([(target_ms, item) for item in found])
    return _once(chain.from_iterable(zip_longest(*chosen)))


def last_rung(search: SearchState) -> list[tuple[float, Archived]]:
    """Targets and the networks that get the whole schedule, once all of the first rung are tried:
    of each target the best after that."""
    settings = search.settings.finalists
    assert settings is not None
    first = first_rung(search)
    if settings.reduction == 1:
        return first
    chosen = []
    for target_ms in search.problem.targets_ms:
        near = search.archive.candidates(target_ms, search.problem.tolerance)
        tried = [(item, item.tried) for item in near if item.tried is not None]
        tried.sort(key=lambda pair: -target_score(pair[1], pair[0].ms, target_ms))
        best = _once((target_ms, item) for item, _ in tried)
        chosen.append(best[: settings.networks])
    return _once(chain.from_iterable(zip_longest(*chosen)))


def _once(pairs: Iterable[tuple[float, Archived] | None]) -> list[tuple[float, Archived]]:
    """Each network once, at the first of its targets."""
    found: dict[Architecture, tuple[float, Archived]] = {}
    for pair in pairs:
        if pair is not None:
            found.setdefault(pair[1].architecture, pair)
    return list(found.values())


def _unlike(near: Sequence[Archived], target_ms: float, count: int) -> list[Archived]:
    """At most ``count`` of them, the best first, of three lists in turn; once all others are like a
    chosen one, the best of those."""

    def by_inherited(item: Archived) -> float:
        return -target_score(item.inherited, item.ms, target_ms)

    def by_supernet(item: Archived) -> float:
        return -target_score(item.accuracy, item.ms, target_ms)

    everything = sorted(near, key=by_inherited)
    independent = [item for item in everything if item.kind != "evolved"]
    decoded = [item for item in near if item.kind not in RANKED_KINDS]
    lists = (everything, independent, sorted(decoded, key=by_supernet))
    found: list[Archived] = []
    for most in (_LIKENESS, 1.0):
        while len(found) < count:
            order = (*lists[len(found) % len(lists)], *everything)
            item = next((item for item in order if _is_new(item, found, most)), None)
            if item is None:
                break
            found.append(item)
    return found


def _is_new(item: Archived, found: Sequence[Archived], likeness: float) -> bool:
    return all(
        item.architecture != other.architecture and _likeness(item, other) <= likeness
        for other in found
    )


def _likeness(one: Archived, other: Archived) -> float:
    """Share of the first's cells that the other has too, at the same place."""

    def cells(item: Archived) -> set[object]:
        branches = item.architecture.branches
        return {(b.scale, number, cell) for b in branches for number, cell in enumerate(b.cells)}

    own = cells(one)
    return len(own & cells(other)) / len(own)


def finalist_epoch(search: SearchState, epoch: int) -> EpochRecord:
    """Make the next training, and keep its mean IoU with its network.

    A training that was stopped is gone on with.

    Args:
        epoch: how many there were before.

    Raises:
        DivergedError: a loss that is not finite.
    """
    started = time.monotonic()
    trial = next_trial(search)
    assert trial is not None
    network, is_whole = trial.network.architecture, trial.share == 1
    folder, settings = search.folder / FINALISTS / f"{epoch + 1:02d}", _settings(search, trial)
    classes = search.data.classes.count

    def on_step(number: int, step: int, steps: int, loss: float) -> None:
        total = settings.schedule.epochs * steps
        search.on_step("finalists", epoch, number * steps + step, total, loss)

    result = Training(
        trainable(network, classes, settings.seed), search.data, settings, folder,
        fabric=search.fabric, processes=search.processes, on_step=on_step,
    ).run()  # fmt: skip
    miou = result.last_mean_iou

    def judged(item: Archived) -> Archived:
        if not is_whole:
            return replace(item, tried=miou)
        return replace(item, trained=miou, score=target_score(miou, item.ms, trial.target_ms))

    search.archive.items = [
        judged(item) if item.kind != "teacher" and item.architecture == network else item
        for item in search.archive.items
    ]
    return EpochRecord(
        "finalists",
        epoch,
        time.monotonic() - started,
        result.records[-1].loss,
        trained_miou=miou,
        trained_ms=trial.network.ms,
        trained_share=trial.share,
        inherited_miou=trial.network.inherited,
    )


def clear_finalist(search: SearchState, epoch: int) -> None:
    """Remove what only going on with that training needs, and all of one of the first rung."""
    folder: Path = search.folder / FINALISTS / f"{epoch + 1:02d}"
    is_whole = search.records[-1].trained_share == 1
    unneeded = folder / CHECKPOINTS if is_whole else folder
    on_first(search.fabric, lambda: shutil.rmtree(unneeded, ignore_errors=True))


def _settings(search: SearchState, trial: Trial) -> TrainSettings:
    """Of a training: the search's data and precision, its share of the schedule."""
    settings = search.settings
    own = settings.finalists
    assert own is not None
    data = settings.data.model_dump() | {"evaluate_images": own.images}
    schedule = ScheduleSettings(**own.model_dump(exclude={"networks", "reduction", "images"}))
    if trial.share < 1:
        batch = own.batch * own.accumulate * search.processes
        steps = own.iterations or max(1, len(search.data.train) // batch)
        schedule = shortened(schedule, steps, trial.share)
    return TrainSettings(
        seed=settings.seed,
        precision=settings.precision,
        is_channels_last=settings.is_channels_last,
        data=TrainDataSettings(**data),
        schedule=schedule,
    )


def shortened(schedule: ScheduleSettings, steps: int, share: float) -> ScheduleSettings:
    """A share of a schedule, at least one step; what warms up is at most a quarter of it.

    Args:
        steps: of one of its epochs. share: above 0, at most 1.
    """
    total = max(1, round(schedule.epochs * steps * share))
    epochs = max(1, total // steps)
    return schedule.model_copy(
        update={
            "epochs": epochs,
            "iterations": max(1, total // epochs),
            "warmup_steps": min(schedule.warmup_steps, total // 4),
        }
    )
