"""The finalists: networks near each target that get a short training of their own; the best wins.

Inherited scores come from weights that all networks share, and do not order networks on every data
set (docs/results, "On photographs"). A short training of its own asks each network itself. All
finalists are trained with one seed: they see the same crops in the same order.

Half of the finalists are those of best inherited score. The others are the best of the networks
that were not evolved, which are drawn independently of each other. Any two differ in at least half
of their cells, as long as there are such networks: relatives would say the same thing twice.

Source: successive halving trains the survivors of a cheaper score: Jamieson and Talwalkar,
Non-stochastic Best Arm Identification, 2016; here with one round.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path

from latlut.search.cosearch.archive import Archived
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


def finalists_of(search: SearchState) -> list[tuple[float, Archived]]:
    """Targets and the networks to train for them: the first of each target, then the second.

    They follow from inherited scores alone, so that the list is the same whatever was trained
    already, and a longer one starts with a shorter one.
    """
    settings, problem = search.settings.finalists, search.problem
    if settings is None:
        return []
    chosen = []
    for target_ms in problem.targets_ms:
        near = search.archive.candidates(target_ms, problem.tolerance)
        near.sort(key=lambda item: -target_score(item.inherited, item.ms, target_ms))
        chosen.append([(target_ms, item) for item in _unlike(near, settings.networks)])
    found: dict[Architecture, tuple[float, Archived]] = {}
    for pair in chain.from_iterable(zip_longest(*chosen)):
        if pair is not None:
            found.setdefault(pair[1].architecture, pair)
    return list(found.values())


def _unlike(near: Sequence[Archived], count: int) -> list[Archived]:
    """At most ``count`` of them, the best first: of all, and of those that were not evolved, in
    turn; once all others are like a chosen one, the best of those."""
    independent = [item for item in near if item.kind != "evolved"]
    found: list[Archived] = []
    for most in (_LIKENESS, 1.0):
        while len(found) < count:
            order = (*(independent if len(found) % 2 else near), *near)
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
    """Train the finalist of that number, and keep its mean IoU with its network.

    A training that was stopped is gone on with.

    Raises:
        DivergedError: a loss that is not finite.
    """
    started = time.monotonic()
    target_ms, finalist = finalists_of(search)[epoch]
    folder, settings = search.folder / FINALISTS / f"{epoch + 1:02d}", _settings(search)
    classes = search.data.classes.count

    def on_step(number: int, step: int, steps: int, loss: float) -> None:
        total = settings.schedule.epochs * steps
        search.on_step("finalists", epoch, number * steps + step, total, loss)

    result = Training(
        trainable(finalist.architecture, classes, settings.seed), search.data, settings, folder,
        fabric=search.fabric, processes=search.processes, on_step=on_step,
    ).run()  # fmt: skip
    miou = result.last_mean_iou
    search.archive.items = [
        replace(item, trained=miou, score=target_score(miou, item.ms, target_ms))
        if item.kind != "teacher" and item.architecture == finalist.architecture else item
        for item in search.archive.items
    ]  # fmt: skip
    return EpochRecord(
        "finalists",
        epoch,
        time.monotonic() - started,
        result.records[-1].loss,
        trained_miou=miou,
        trained_ms=finalist.ms,
        inherited_miou=finalist.inherited,
    )


def clear_finalist(search: SearchState, epoch: int) -> None:
    """Remove what only going on with that finalist's training needs; its model stays."""
    folder: Path = search.folder / FINALISTS / f"{epoch + 1:02d}" / CHECKPOINTS
    on_first(search.fabric, lambda: shutil.rmtree(folder, ignore_errors=True))


def _settings(search: SearchState) -> TrainSettings:
    """Of every finalist's training: the search's data and precision."""
    settings = search.settings
    own = settings.finalists
    assert own is not None
    data = settings.data.model_dump() | {"evaluate_images": own.images}
    schedule = own.model_dump(exclude={"networks", "images"})
    return TrainSettings(
        seed=settings.seed,
        precision=settings.precision,
        is_channels_last=settings.is_channels_last,
        data=TrainDataSettings(**data),
        schedule=ScheduleSettings(**schedule),
    )
