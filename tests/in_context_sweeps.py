"""Sweeps in context with a scripted engine: what an operator costs between neighbours is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from fake_engine import OPS, FakeEngine, work_ns

from latlut.measure.plans import Plan, plan_from_ops
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.operators.in_context import ContextWorkload
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.table.identity import IN_CONTEXT
from latlut.table.roofline import Roofline
from latlut.table.table import LatencyTable

SKIP = "skip 8->8 stride 1 at 16x16 form=identity"
STEM = "conv 3->8 stride 2 at 32x32"
CONTEXT_OPS = (*OPS, SKIP, STEM)


def work_in_context(**factors: float) -> Callable[[Workload], float]:
    """``work_ns``, an operator of a kind in ``factors`` taking that multiple of it in context."""

    def scripted(workload: Workload) -> float:
        usual = work_ns(workload)
        if not isinstance(workload, ContextWorkload) or workload.operator is None:
            return usual
        own = work_ns(Workload.from_spec(workload.operator))
        return usual + (factors.get(workload.operator.kind, 1.0) - 1) * own

    return scripted


def free_identities_and_saving_upsampling() -> Callable[[Workload], float]:
    """A script by which a skip costs nothing in context, an upsampling less than nothing."""
    return work_in_context(skip=0.0, upsample=-0.5)


def truth_ms(spec: OpSpec, noise: float = 0.01) -> float:
    factor = {"skip": 0.0, "upsample": -0.5}.get(spec.kind, 1.0)
    return factor * work_ns(Workload.from_spec(spec)) * float(np.exp(-1.2816 * noise)) / 1e6


def sweep_of(
    path: Path, ops=CONTEXT_OPS, engine: FakeEngine | None = None, mode: str = IN_CONTEXT,
    roofline: Roofline | None = None, **settings
) -> Sweep:  # fmt: skip
    engine = engine or FakeEngine()
    table = LatencyTable.create(path, identity_of(engine, "cpu", statistic="p10", mode=mode))
    plan = ops if isinstance(ops, Plan) else plan_from_ops(ops)
    return Sweep(table, plan, engine, SweepSettings(**settings), roofline=roofline)


def swept_file(path: Path, mode: str = IN_CONTEXT) -> Path:
    """A table file of ``CONTEXT_OPS``, five passes."""
    sweep = sweep_of(path, mode=mode)
    sweep.run()
    sweep.table.close()
    return path
