"""A search into a folder: begun or gone on with, told of while it goes, and written out.

with LatencyTable.open("cpu") as table:
    found = run_search(table, load_settings("tiny"), Path("runs/search"))
print(found.student.latency_ms)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from lightning_fabric import Fabric

from latlut.pricing.calibration import stored as stored_calibration
from latlut.search.cosearch.folder import (
    Found,
    changeable,
    finish_search,
    found_in,
    search_facts,
    write_progress,
)
from latlut.search.cosearch.inherited import FEWEST_IMAGES
from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.records import EpochRecord
from latlut.search.cosearch.search import Search
from latlut.search.cosearch.settings import SearchSettings
from latlut.search.cosearch.state import SearchState
from latlut.search.cosearch.tensorboard import SearchLog
from latlut.search.data.dataset import SegmentationData
from latlut.search.runs.folder import Environment, begin_run, processes_of
from latlut.search.runs.listening import RunListener, watched
from latlut.search.runs.lock import run_lock
from latlut.search.runs.processes import TIMEOUT_S, ended_by_signal, launched, on_first
from latlut.search.train.data import checked_data
from latlut.table.table import LatencyTable


def run_search(
    table: LatencyTable,
    settings: SearchSettings,
    folder: Path,
    *,
    listener: RunListener | None = None,
    environment: Environment = dict,
    accelerator: str = "cpu",
    devices: int = 1,
    timeout_s: float = TIMEOUT_S,
) -> Found | None:
    """Search for a teacher and a student; what was found, and None on all processes but the first.

    Args:
        table: prices networks; open for reading.
        settings: all of the search.
        folder: takes all that is found; one that holds this very search, stopped, is gone on with.
        listener: told how it goes.
        environment: gives what is kept of the machine in ``run.json``.
        accelerator, devices, timeout_s: see ``processes.launched``.

    Raises:
        LatlutError: settings, table, data or folder that do not fit each other, before anything is
            written; a loss that is not finite, no student near the target, or another process
            that ended, afterwards.
    """
    problem = SearchProblem(table, settings.space, settings.latency)
    data = checked_data(settings.data).data
    fabric = launched(accelerator, devices, settings.precision, timeout_s)
    told = listener if listener is not None and fabric.is_global_zero else RunListener()
    with ended_by_signal(fabric), ExitStack() as held:
        on_first(fabric, lambda: held.enter_context(run_lock(folder)))
        return _search(problem, data, settings, folder, fabric, told, environment)


def _search(
    problem: SearchProblem,
    data: SegmentationData,
    settings: SearchSettings,
    folder: Path,
    fabric: Fabric,
    told: RunListener,
    environment: Environment,
) -> Found | None:
    is_first = fabric.is_global_zero
    processes = on_first(fabric, lambda: processes_of(folder, fabric.world_size))
    search = Search(problem, data, settings, folder, fabric, processes)
    for phase in search.phases:
        search.halves(phase)  # refused before the folder is this run's
    facts = search_facts(problem, data.name)
    remarks = {"seed": settings.seed, "processes": processes}
    goes_on = on_first(
        fabric,
        lambda: begin_run(
            folder,
            settings.to_dict(),
            facts,
            environment,
            changeable=changeable(folder, settings),
            **remarks,
        ),
    )
    told.remark(_headline(problem, goes_on, folder))
    if settings.rank is not None:
        for text in _doubts(search):
            told.remark(text)
    log = SearchLog(folder / "tensorboard") if is_first else None

    def on_step(phase: str, epoch: int, step: int, steps: int, loss: float) -> None:
        if log is not None:
            log.on_step(phase, epoch, step, steps, loss)
            told.step(f"{phase} {epoch + 1}", step, steps, loss)

    def on_epoch(record: EpochRecord, state: SearchState) -> None:
        if log is not None:  # else another process tells
            log.on_epoch(record, state)
            write_progress(state)
            told.epoch(record)
            told.remark(record.describe(search.epochs(record.phase)))

    search.on_step, search.on_epoch = on_step, on_epoch
    with watched(told, folder, log):
        search.run()
    if not is_first:
        return None
    found = found_in(search)
    write_progress(search)  # a run that was killed after its last epoch has not
    finish_search(found, problem.tolerance)
    told.searched(found)
    return found


def _doubts(search: Search) -> Iterator[str]:
    """What there is to know of the images that networks will be ranked by."""
    scorer = search.scorer()
    if scorer.images < FEWEST_IMAGES:
        yield (
            f"validation images to rank networks by: {scorer.images}, too few (fewer than "
            f"{FEWEST_IMAGES}): the choice among them will be mostly chance"
        )
    if scorer.absent:
        yield (
            f"no validation label has {', '.join(scorer.absent)}: left out of the scores that "
            "networks are ranked by"
        )


def _headline(problem: SearchProblem, goes_on: bool, folder: Path) -> str:
    reach, weights = problem.reach, problem.latency.weights
    shares = (
        "balanced by gradients"
        if problem.settings.weights == "gradient"
        else ", ".join(f"{weight:.3g}" for weight in weights)
    )
    asked = (
        ""
        if problem.settings.target_ms or problem.settings.targets_ms
        else " (none was asked for: that of random networks)"
    )
    lacks = ", ".join(spec.key for spec in problem.unpriced)
    without = f"\nthe table cannot price, and no latency here has: {lacks}" if lacks else ""
    front = ""
    if len(problem.targets_ms) > 1:
        front = f"\nfront: {', '.join(f'{ms:.4g}' for ms in problem.targets_ms)} ms"
    if problem.unreachable_ms:
        left_out = ", ".join(f"{ms:.4g}" for ms in problem.unreachable_ms)
        front += f"\nleft out, as no network of this space can meet them: {left_out} ms"
    calibration = stored_calibration(problem.table)
    if calibration is not None:
        without += f"\nlatencies are calibrated on {calibration.networks} measured networks"
    return (
        f"{'going on with' if goes_on else 'searching into'} {folder}: {problem.space.layers} "
        f"layers, branches: {problem.space.branches}, widths "
        f"{', '.join(map(str, problem.student_widths))} of 12\n"
        f"target {problem.target_ms:.4g} ms{asked} of {reach.fastest_ms:.4g} to "
        f"{reach.slowest_ms:.4g} ms that can be reached, by {problem.table.title} at "
        f"{problem.input_size[0]}x{problem.input_size[1]}; penalty weights "
        f"{shares}{front}{without}"
    )
