"""``profile``: a sweep with all that it needs around it, from an engine to a table's file.

from latlut.engines import engine_class, run_environment
from latlut.machine.targets import cpu_target
from latlut.measure.plans import load_plan
from latlut.measure.profile import profile

engine = engine_class("onnxruntime")(threads=1)
profile(load_plan("tiny"), engine, cpu_target(1), "tiny.db")
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from latlut.engines import run_environment
from latlut.engines.base import Engine
from latlut.machine.targets import Target
from latlut.measure.held_device import measuring_on
from latlut.measure.parts import Part
from latlut.measure.plans import Plan
from latlut.measure.supervising import Supervision
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_report import SweepSummary
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.measure.waiting import Say
from latlut.progress import Progress
from latlut.table.roofline import Roofline
from latlut.table.subgraphs import require_graphs
from latlut.table.table import LatencyTable


def roofline_of(target: Target, engine: Engine) -> Roofline:
    """The target's peak figures for the engine's arithmetic."""
    return Roofline(
        target.peak_flops_per_s(engine.arithmetic),
        target.bandwidth_bytes_per_s,
        target.cache_bandwidth_bytes_per_s,
    )


def profile(
    plan: Plan,
    engine: Engine,
    target: Target,
    path: str | Path,
    settings: SweepSettings | None = None,
    *,
    mode: str | None = None,
    listener: Callable[[Progress], None] | None = None,
    waiting: Say | None = None,
    part: Part | None = None,
    supervision: Supervision | None = None,
) -> SweepSummary:
    """Measure what a table lacks of a plan, holding the engine's device meanwhile.

    Args:
        plan: what to measure.
        engine: measures it.
        target: the hardware that it runs on.
        path: of the table; made if it is not there, continued if it is of the same identity.
        settings: passes, budget, timing.
        mode: how operators are isolated, one of ``table.identity.MODES``; the engine's default if
            not given.
        listener: told of each measurement.
        waiting: see ``measuring_on``.
        part: the share of the plan to measure; all of it if not given.
        supervision: of this process, where it is a child that is watched.

    Returns:
        How the sweep ended.

    Raises:
        DeviceBusyError: another process measures on the device.
        IdentityError: the table is of another identity; names the fields that differ.
        SpecError: a piece of an ONNX graph that neither the plan nor the table came with.
        LatlutError: see ``Sweep.run``.
    """
    settings = settings or SweepSettings()
    require_graphs(Path(path), plan.specs)
    # What the machine is, before this process is pinned to a part of it.
    environment = run_environment()
    identity = identity_of(
        engine,
        target.name,
        statistic=settings.timing.statistic,
        mode=mode or engine.default_mode,
    )
    with measuring_on(engine, waiting=waiting), LatencyTable.create(path, identity) as table:
        return Sweep(
            table,
            plan,
            engine,
            settings,
            roofline=roofline_of(target, engine),
            listener=listener,
            environment=environment,
            part=part,
            supervision=supervision,
        ).run()
