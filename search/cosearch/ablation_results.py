"""What an ablation came to: one result per row and seed, their spread, and paired differences.

mIoU is that after the last epoch: the best epoch would be chosen on the images that judge it. The
best one's is kept beside it. Latency, MACs and parameters are those of the architecture with the
table's number of classes, as ``latlut estimate`` and ``latlut compare`` give them for its file.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latlut.pricing.estimator import estimate
from latlut.search.cosearch.ablation import STRATEGIES, AblationPlan, Strategy
from latlut.search.cosearch.records import name_of
from latlut.search.networks.cost import DEFINITION, cost_of_architecture
from latlut.search.runs.folder import read_json, write_csv, write_json
from latlut.spaces import Architecture
from latlut.table.table import LatencyTable

#: Seeds from which on a difference has an interval.
SEEDS_FOR_INTERVAL = 3
CONFIDENCE = 0.95


@dataclass(frozen=True)
class SeedResult:
    """One row of the ablation under one seed."""

    strategy: str
    """Its name. seed: of search and training."""
    seed: int
    miou_percent: float
    best_miou_percent: float
    """``miou_percent``, ``best_miou_percent``: on the validation set, after the last epoch and the
    best."""
    latency_ms: float | None
    """By the table; None where it cannot price the teacher. fps: 1000 / latency_ms."""
    fps: float | None
    macs: int
    parameters: int
    training_parameters: int
    """``macs``, ``parameters``, ``training_parameters``: see ``networks.cost``."""
    target_ms: float | None
    """Of the search; None for a network that has none, the teacher and the pruned one."""
    branches: str
    """The scales at which they end, ``16+32``."""
    training_s: float
    """Seconds of the training, evaluations included."""


def seed_result(
    strategy: Strategy,
    seed: int,
    network: Architecture,
    trained: Path,
    plan: AblationPlan,
    table: LatencyTable,
) -> SeedResult:
    """The result of a finished training.

    Args:
        network: what was trained, with the table's number of classes.
        trained: folder of the training.

    Raises:
        LatlutError: its ``result.json`` cannot be read.
    """
    score = read_json(trained / "result.json")
    priced = estimate(network.op_specs(plan.input_size, plan.batch), table, allow_missing=True)
    is_priced = strategy.network == "student" or priced.is_complete
    ms = priced.ms if is_priced else None
    cost = cost_of_architecture(network, plan.input_size)
    assert cost.training_parameters is not None and cost.macs is not None
    return SeedResult(
        strategy.name,
        seed,
        100 * score["last_mean_iou"],
        100 * score["best_mean_iou"],
        ms,
        None if ms is None else 1000 / ms,
        cost.macs,
        cost.parameters,
        cost.training_parameters,
        plan.search(strategy.search).target_ms if strategy.network == "student" else None,
        name_of(tuple(branch.scale for branch in network.branches)),
        score["seconds"],
    )


@dataclass(frozen=True)
class Spread:
    """Of a number over seeds: mean, standard deviation (None for a single seed), range."""

    mean: float
    deviation: float | None
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation with n - 1, smallest and largest of at least one value."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation, min(values), max(values))


@dataclass(frozen=True)
class Comparison:
    """Two rows of which the difference is of interest: ``first`` minus ``second``."""

    name: str
    title: str
    first: str
    second: str


COMPARISONS: tuple[Comparison, ...] = (
    Comparison("distillation", "with distillation - without", "distilled", "student"),
    Comparison("widths", "searched widths - fixed", "student", "two-branches"),
    Comparison("branches", "two branches - one", "two-branches", "one-branch"),
    Comparison("pruning", "distilled student - pruned teacher", "distilled", "pruned-teacher"),
    Comparison("teacher", "teacher - student", "teacher", "student"),
)


@dataclass(frozen=True)
class Difference:
    """A comparison's difference in mIoU, seed by seed, in percentage points."""

    comparison: Comparison
    by_seed: dict[int, float]
    """Seed -> difference."""
    mean: float
    """Over seeds."""
    ci_low: float | None
    ci_high: float | None
    """``ci_low``, ``ci_high``: 95% interval of the mean by Student's t with n - 1 degrees of
    freedom; None below three seeds. It takes differences to be normal: with few seeds a rough
    guide, and it knows nothing of other data."""


def difference(comparison: Comparison, results: Sequence[SeedResult]) -> Difference:
    """The difference, paired by seed, over the seeds that have both rows; at least one has."""
    from scipy import stats

    scores = {(item.strategy, item.seed): item.miou_percent for item in results}
    seeds = sorted({item.seed for item in results})
    by_seed = {
        seed: scores[comparison.first, seed] - scores[comparison.second, seed]
        for seed in seeds
        if (comparison.first, seed) in scores and (comparison.second, seed) in scores
    }
    found = spread(list(by_seed.values()))
    if len(by_seed) < SEEDS_FOR_INTERVAL:
        return Difference(comparison, by_seed, found.mean, None, None)
    assert found.deviation is not None
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(by_seed) - 1))
    half = quantile * found.deviation / math.sqrt(len(by_seed))
    return Difference(comparison, by_seed, found.mean, found.mean - half, found.mean + half)


@dataclass(frozen=True)
class AblationResult:
    """All results of an ablation, in the order of ``STRATEGIES``, then of the seeds."""

    plan: AblationPlan
    results: tuple[SeedResult, ...]

    def of(self, strategy: Strategy) -> list[SeedResult]:
        """A row's results, one per seed."""
        return [item for item in self.results if item.strategy == strategy.name]

    def spread(self, strategy: Strategy, name: str) -> Spread | None:
        """The spread of one of a row's numbers, ``miou_percent`` or another; None where it is not
        known."""
        values = [getattr(item, name) for item in self.of(strategy)]
        return None if None in values else spread(values)

    def differences(self) -> list[Difference]:
        """All of ``COMPARISONS``."""
        return [difference(item, self.results) for item in COMPARISONS]

    def note(self, strategy: Strategy) -> str:
        """What has to be known of a row: a target out of reach; else nothing."""
        search = self.plan.search(strategy.search)
        if strategy.network != "student" or not search.is_moved:
            return ""
        fastest_ms, slowest_ms = search.reachable_ms
        return (
            f"{strategy.title}: {self.plan.target_ms:.4g} ms is out of its reach "
            f"({fastest_ms:.4g} to {slowest_ms:.4g} ms), {search.target_ms:.4g} ms was taken"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, complete."""
        numbers = ("miou_percent", "best_miou_percent", "latency_ms", "fps", "macs", "parameters",
                   "training_parameters")  # fmt: skip
        return {
            "target_ms": self.plan.target_ms,
            "fixed_width": self.plan.fixed_width,
            "narrowest_width": self.plan.narrowest_width,
            "input_size": list(self.plan.input_size),
            "definition": DEFINITION,
            "seeds": sorted({item.seed for item in self.results}),
            "strategies": [
                {
                    "name": strategy.name,
                    "title": strategy.title,
                    "note": self.note(strategy) or None,
                    **{
                        name: None
                        if (found := self.spread(strategy, name)) is None
                        else asdict(found)
                        for name in numbers
                    },
                }
                for strategy in STRATEGIES
            ],
            "comparisons": [asdict(item) for item in self.differences()],
            "results": [asdict(item) for item in self.results],
        }


def write_results(folder: Path, found: AblationResult) -> None:
    """Write ``ablation.csv``, a line per row and seed, and ``ablation.json``.

    Raises:
        WriteError: they cannot be written.
    """
    write_csv(folder / "ablation.csv", [asdict(item) for item in found.results])
    write_json(folder / "ablation.json", found.to_dict())
