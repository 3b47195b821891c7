"""What a search found, measured beside the table's sentinels on its machine, and its picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from latlut.cli.meeting import meeting_text
from latlut.cli.output import remark
from latlut.cli.progress import progress_bar

if TYPE_CHECKING:
    from latlut.engines.base import Engine
    from latlut.search.cosearch.folder import Found
    from latlut.table.table import LatencyTable

#: Visits of each network in each of two passes.
ROUNDS = 4
#: Hand-designed networks that are measured with a front.
BASELINES = ("fast-scnn", "enet", "bisenet-v2")


def engine_of(table: LatencyTable) -> Engine:
    """The engine that the table was measured with, started here.

    Raises:
        LatlutError: this is another machine, or has another engine; says what differs.
    """
    from latlut.engines.choosing import DeviceChoice, choose_engine
    from latlut.measure.sweep_settings import identity_of

    own = table.identity
    target, engine = choose_engine(DeviceChoice.of_identity(own))
    table.check_identity(identity_of(engine, target.name, mode=own.mode, statistic=own.statistic))
    return engine


def measure_front(found: Found, table: LatencyTable, engine: Engine, is_quiet: bool) -> list[str]:
    """Measure every student, and keep that in ``result.json``; a line for each, met or missed.

    A front is measured together with ``BASELINES``, and drawn again.
    """
    from dataclasses import replace

    from latlut.measure.held_device import measuring_on
    from latlut.measure.networks import NetworkTimer
    from latlut.operators.workloads import Workload
    from latlut.search.networks.deployable import from_baseline
    from latlut.search.runs.folder import RESULT, read_json, write_json
    from latlut.table.history import usual_sentinels
    from latlut.table.space import space_of
    from latlut.validation.validate import ValidationSettings

    settings, where = ValidationSettings(), space_of(table)
    workloads: list[Workload] = [
        Workload.from_nodes(
            member.student.architecture.nodes(where.input_size, where.batch),
            f"{member.target_ms:.4g} ms",
        )
        for member in found.members
    ]
    names = BASELINES if len(found.members) > 1 else ()
    classes = found.student.architecture.num_classes
    workloads += [
        from_baseline(name, classes).workload(where.input_size, where.batch) for name in names
    ]
    timing = replace(settings.timing, statistic=table.identity.statistic)
    timer = NetworkTimer(engine, timing, usual_sentinels(table), None, settings.group)
    remark(f"measuring {len(workloads)} networks beside the table's reference operators", is_quiet)
    with measuring_on(engine), progress_bar("measure", is_quiet) as listener:
        readings = timer.passes(workloads, ROUNDS, 0, listener)
    first, second = (passes.tolist() for passes in readings.passes_ms())
    measured = [(one + other) / 2 for one, other in zip(first, second, strict=True)]
    result = read_json(found.folder / RESULT)
    for entry, ms in zip(result["front"], measured, strict=False):
        entry["measured_ms"] = ms
    baselines = dict(zip(names, measured[len(found.members) :], strict=True))
    result["baselines_ms"] = baselines
    write_json(found.folder / RESULT, result)
    students = dict(zip((m.target_ms for m in found.members), measured, strict=False))
    draw_front(found, students, baselines)
    return [
        meeting_text(member.target_ms, member.student.ms, ms, readings.cpu_share)
        for member, ms in zip(found.members, measured, strict=False)
    ]


def draw_front(
    found: Found,
    measured_ms: Mapping[float, float] | None = None,
    baselines_ms: Mapping[str, float] | None = None,
) -> None:
    """Draw ``front.png`` of a search for several targets, which has one; see ``plot_front``."""
    from latlut.reports.front import plot_front

    if len(found.members) > 1:
        title = f"{len(found.members)} students of one search"
        path = found.folder / "front.png"
        plot_front(found, measured_ms or {}, baselines_ms or {}, title, path)
