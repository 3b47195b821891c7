"""An active sweep: a part of a plan is measured, the part that tells most, and the rest predicted.

The op specs are chosen in batches (``predict.design``), each measured by an ordinary sweep into the
table, so that it can be stopped at any time and the same command continues. It ends when the part
is measured, the time is spent, or a network's interval is as narrow as asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from latlut.errors import PredictionError
from latlut.measure.plans import Plan
from latlut.measure.sweep_report import SweepSummary, joined
from latlut.opspec import OpSpec
from latlut.predict.design import Design, counts_of
from latlut.predict.predictor import LEAST_KNOWN, Predictor
from latlut.pricing.predicting import NO_PIECES, predict_entries, store_predictions
from latlut.table.history import failures, measurement_count
from latlut.table.space import space_from_plan
from latlut.table.table import LatencyTable

#: Op specs between two looks at the model.
BATCH = 16
#: Random networks of the space whose intervals are to be narrow.
NETWORKS = 200


@dataclass(frozen=True)
class ActiveSettings:
    """When an active sweep ends.

    Raises:
        PredictionError: a share or a width that is not between 0 and 1.
    """

    fraction: float = 1.0
    """Of the plan's op specs that are measured at most."""
    until: float | None = None
    """Relative half-width of a network's 95% interval, as far as predictions cause it."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("fraction", self.fraction), ("until", self.until)):
            if value is not None and not 0 < value <= 1:
                raise PredictionError(f"{name} is between 0 and 1, received {value:g}")


@dataclass(frozen=True)
class ActiveResult:
    """How an active sweep ended."""

    summary: SweepSummary
    """Of all its batches."""
    reason: str
    """``the part is measured``, ``the interval is as narrow as asked``, ``the budget is spent``."""
    measured: int
    """Op specs of the plan with a measured entry."""
    predicted: int
    left_out: tuple[OpSpec, ...]
    """``predicted``, ``left_out``: op specs that were, and that could not be predicted."""
    network_half_width: float | None
    """Relative, of a network's 95% interval, as far as predictions cause it: mean over random
    networks of the plan's space; None where the plan has no space, or nothing is predicted."""


def design_of(plan: Plan, seed: int) -> Design:
    """What to measure of a plan, by the weight of its op specs in its space's networks."""
    networks: list[Sequence[OpSpec]] = []
    if plan.space is not None:
        own = space_from_plan(plan.space)
        sampled = own.space.sample_many(NETWORKS, seed)
        networks = [network.op_specs(own.input_size, own.batch) for network in sampled]
    return Design(plan.specs, counts_of(plan.specs, networks), seed)


def measured_of(table: LatencyTable, plan: Plan) -> dict[OpSpec, float]:
    """The plan's op specs with a measured entry -> milliseconds."""
    held = {spec: table.lookup(spec) for spec in plan.specs if spec in table}
    return {spec: entry.latency_ms for spec, entry in held.items() if not entry.is_predicted}


def sweep_actively(
    plan: Plan,
    path: Path,
    settings: ActiveSettings,
    sweep: Callable[[Plan, float | None], SweepSummary],
    budget_s: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> ActiveResult:
    """Measure a part of a plan into a table, and predict the rest.

    Args:
        plan: all that shall have an entry.
        path: of the table, which ``sweep`` makes.
        settings: when it ends.
        sweep: measures a plan into the table within seconds of wall time, None for no limit; what
            the table has already it leaves.
        budget_s: wall time of all of it.
        say: told after each batch.

    Raises:
        PredictionError: the plan is too small to predict a part of it, or the part is; it is one
            of pieces of ONNX files.
    """
    if plan.cut is not None:
        raise PredictionError(
            f"{NO_PIECES}: measure all of them; with --budget the same command continues later"
        )
    design = design_of(plan, settings.seed)
    total = max(math.ceil(settings.fraction * len(plan.specs) - 1e-9), 1)
    least = max(LEAST_KNOWN, len(design.always) + 1)
    if total < least:
        raise PredictionError(
            f"{total} of {len(plan.specs)} operator configurations are too few to predict "
            "the others from: this "
            f"plan takes {least}, --fraction {math.ceil(100 * least / len(plan.specs)) / 100:g}"
        )
    ends = None if budget_s is None else time.monotonic() + budget_s
    summaries: list[SweepSummary] = []
    known: dict[OpSpec, float] = {}
    readings = 0
    failed: Mapping[str, str] = {}
    predictor: Predictor | None = None
    half_width: float | None = None
    if path.exists() and path.stat().st_size:
        with LatencyTable.open(path) as table:
            known, readings = measured_of(table, plan), measurement_count(table)
    while True:
        if len(known) >= LEAST_KNOWN and all(
            plan.specs[place] in known or plan.specs[place].key in failed for place in design.always
        ):
            predictor = design.fit(known, total)
            half_width = _half_width(design, known, predictor)
            if half_width is not None:
                say(
                    f"{len(known)} of {len(plan.specs)} operator configurations measured: "
                    "predictions leave a "
                    f"network's 95% interval at ±{100 * half_width:.1f}%"
                )
        if settings.until is not None and half_width is not None and half_width <= settings.until:
            reason = "the interval is as narrow as asked"
            break
        left_s = None if ends is None else ends - time.monotonic()
        tried = dict(known) | {s: math.nan for s in plan.specs if s.key in failed}
        batch = _next(design, known, tried, total, predictor)
        if not batch:
            reason = "the part is measured"
            break
        if left_s is not None and left_s <= 0:
            reason = "the budget is spent"
            break
        wanted = replace(plan, specs=(*known, *batch))
        summaries.append(sweep(wanted, left_s))
        with LatencyTable.open(path) as table:
            known, failed = measured_of(table, plan), failures(table)
        if summaries[-1].status != "done":
            reason = "the budget is spent"
            break
    with LatencyTable.open(path, is_writable=True) as table:
        if predictor is None or set(known) != set(predictor.specs):
            predictor = design.fit(known, total)
            half_width = _half_width(design, known, predictor)
        found = predict_entries(table, plan.specs, predictor)
        stored = store_predictions(table, found)
        readings = measurement_count(table) - readings
    summary = joined(summaries) if summaries else SweepSummary("done", seconds={"total": 0.0})
    summary.measured, summary.reused = readings, 0
    summary.seconds["total"] = sum(item.seconds.get("total", 0.0) for item in summaries)
    left_out = tuple(spec for spec in found.left_out if spec.key not in failed)
    return ActiveResult(summary, reason, len(known), stored, left_out, half_width)


def _next(
    design: Design, known: Mapping[OpSpec, float], tried: Mapping[OpSpec, float], total: int,
    predictor: Predictor | None,
) -> list[OpSpec]:  # fmt: skip
    """The next batch; what does not need a model is measured at once. Failed op specs are none."""
    count = BATCH
    if not known:
        count += len(design.always) + len(design.random(total))
    return [spec for spec in design.next(known, count, total, predictor) if spec not in tried]


def _half_width(
    design: Design, known: Mapping[OpSpec, float], predictor: Predictor
) -> float | None:
    if len(known) >= len(design.specs):
        return 0.0
    found = design.network_half_width(known, predictor)
    return found if np.isfinite(found) else None
