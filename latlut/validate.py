"""Whole networks, measured and estimated: how far a table can be trusted.

Networks are sampled from the table's space by a fixed sampler, and each is measured in two
passes. A pass visits all networks in several rounds, each time in another random order with a
fresh session, so that drift of the machine falls on all of them alike; the second pass comes
after the first, so that the difference between them is the noise an estimate cannot beat.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from latlut import __version__, operators
from latlut.agreement import Agreement, agreement
from latlut.engines.base import Engine, Session
from latlut.environment import collect_environment
from latlut.errors import MissingEntryError
from latlut.estimator import Estimate, estimate
from latlut.graphs import GraphCache, Workload
from latlut.opspec import OpSpec
from latlut.progress import Progress
from latlut.spaces import Architecture
from latlut.table import LatencyTable, now_text
from latlut.table_space import TableSpace
from latlut.timing import TimingSettings, measure


@dataclass(frozen=True)
class ValidationSettings:
    """How networks are measured: ``rounds`` per pass, two passes; ``seed`` of sampler and order."""

    networks: int = 60
    rounds: int = 3
    seed: int = 0
    timing: TimingSettings = field(
        default_factory=lambda: TimingSettings(
            min_samples=6, max_samples=400, min_time_s=0.25, time_cap_s=0.5, warmup_cap_s=0.5
        )
    )


@dataclass(frozen=True)
class ValidatedNetwork:
    """A network's estimate and its latency in each of the two passes, milliseconds."""

    architecture: Architecture
    estimate: Estimate
    measured_first_ms: float
    measured_second_ms: float

    @property
    def measured_ms(self) -> float:
        """Mean of the two passes."""
        return (self.measured_first_ms + self.measured_second_ms) / 2

    @property
    def error_percent(self) -> float:
        """Percent by which the estimate is too high."""
        return 100 * (self.estimate.ms / self.measured_ms - 1)


@dataclass(frozen=True)
class Validation:
    """The networks, what they say together, and how fast the machine was compared with the table.

    ``speed_factor`` is the sentinels' latency now over that in the table, NaN if it has none.
    """

    networks: tuple[ValidatedNetwork, ...]
    agreement: Agreement
    sampler: str
    speed_factor: float

    def worst(self, count: int = 3) -> list[ValidatedNetwork]:
        """The networks whose estimates are furthest off."""
        return sorted(self.networks, key=lambda item: -abs(item.error_percent))[:count]


def estimate_all(
    networks: Sequence[Architecture], table: LatencyTable, where: TableSpace
) -> list[Estimate]:
    """Every network's estimate from its own entries; nothing may be missing or substituted.

    Raises:
        MissingEntryError: lists what the table lacks, and the command that adds it.
    """
    estimates = []
    missing: dict[str, None] = {}
    for network in networks:
        specs = network.op_specs(where.input_size, where.batch)
        missing.update({spec.key: None for spec in specs if spec not in table})
        estimates.append(estimate(specs, table))
    if missing:
        listed = "\n  ".join(list(missing)[:5])
        more = f"\n  and {len(missing) - 5} more" if len(missing) > 5 else ""
        height, width = where.input_size
        raise MissingEntryError(
            f"{table.path} lacks {len(missing)} op specs of these networks:\n  {listed}{more}\n"
            f"add them with: latlut profile --table {table.path} --plan fasterseg "
            f"--input {height}x{width}, or the plan the table was made with"
        )
    return estimates


class NetworkTimer:
    """Measures networks visit by visit, and the table's sentinels between them."""

    def __init__(
        self, engine: Engine, timing: TimingSettings, cache: GraphCache | None = None
    ) -> None:
        self.engine, self.timing, self.cache = engine, timing, cache or GraphCache()
        self._checked: set[str] = set()

    def visit_ms(self, workload: Workload) -> float:
        """One fresh session's latency: the statistic of its samples, milliseconds.

        The first visit of a workload compares the engine's output with PyTorch's.
        """
        is_new = workload.name not in self._checked
        module = workload.build() if is_new or not self.engine.reads_onnx else None
        graph = self.cache.onnx_bytes(workload, module) if self.engine.reads_onnx else None
        with self.engine.load(workload, module=module, graph=graph) as session:
            if is_new and module is not None:
                self.engine.check_parity(session, module)
                self._checked.add(workload.name)
            return self._sample(session)

    def _sample(self, session: Session) -> float:
        return measure(session.sample_ns, self.timing).interval_ms.value


def table_sentinels(table: LatencyTable) -> dict[OpSpec, float]:
    """The op specs that served as sentinels, with their latency in the table, milliseconds."""
    rows = table.rows(
        "SELECT DISTINCT key FROM sentinel_readings JOIN op_specs ON op_specs.id = op_spec_id"
    )
    specs = [OpSpec.parse(row["key"]) for row in rows]
    return {spec: table.lookup(spec).latency_ms for spec in specs if spec in table}


def validate(
    table: LatencyTable,
    engine: Engine,
    where: TableSpace,
    settings: ValidationSettings,
    *,
    cache: GraphCache | None = None,
    listener: Callable[[Progress], None] | None = None,
) -> Validation:
    """Measure random networks of the space and compare them with their estimates.

    Args:
        table: prices the networks; of the engine's identity.
        engine: measures them.
        where: what to sample, at which input size.
        settings: how many networks, rounds, seed; the statistic is the table's.
        cache: of exported graphs.
        listener: told of each visit.

    Raises:
        MissingEntryError: the table lacks op specs of the sampled networks (before measuring).
        ParityError: the engine computes another network than PyTorch.
    """
    sentinels = table_sentinels(table)
    for spec in sentinels:
        operators.check(spec)
    networks = where.space.sample_many(settings.networks, settings.seed)
    estimates = estimate_all(networks, table, where)
    workloads = [
        Workload.from_nodes(network.nodes(where.input_size, where.batch), f"network {index}")
        for index, network in enumerate(networks)
    ]
    timing = replace(settings.timing, statistic=table.identity.statistic)
    timer = NetworkTimer(engine, timing, cache)
    ratios: list[float] = []
    passes = np.zeros((2, settings.rounds, len(networks)))
    order = list(range(len(networks)))
    visits, total = 0, 2 * settings.rounds * len(networks)
    for pass_index in range(2):
        for round_index in range(settings.rounds):
            random.Random(f"{settings.seed}/{pass_index}/{round_index}").shuffle(order)
            for index in order:
                ms = timer.visit_ms(workloads[index])
                passes[pass_index, round_index, index] = ms
                visits += 1
                if listener is not None:
                    listener(Progress(visits, total, pass_index, workloads[index].name, ms))
            ratios += [
                timer.visit_ms(Workload.from_spec(spec)) / usual_ms
                for spec, usual_ms in sentinels.items()
            ]
    first, second = np.median(passes, axis=1)
    found = agreement([item.ms for item in estimates], first, second, seed=settings.seed)
    results = tuple(
        ValidatedNetwork(*item)
        for item in zip(networks, estimates, first.tolist(), second.tolist(), strict=True)
    )
    speed = float(np.median(ratios)) if ratios else float("nan")
    return Validation(results, found, where.space.describe_sampler(), speed)


def store(table: LatencyTable, validation: Validation, settings: ValidationSettings) -> int:
    """Keep the validation in the table's file; its id."""
    with table.writing() as db:
        cursor = db.execute(
            "INSERT INTO validations (at, networks, seed, sampler, settings, environment,"
            " agreement, latlut_version) VALUES (?,?,?,?,?,?,?,?)",
            [
                now_text(),
                len(validation.networks),
                settings.seed,
                validation.sampler,
                json.dumps(asdict(settings)),
                json.dumps(collect_environment()),
                json.dumps(
                    validation.agreement.to_dict()
                    | {"speed_factor": _finite(validation.speed_factor)}
                ),
                __version__,
            ],
        )
        validation_id = int(cursor.lastrowid or 0)
        for position, item in enumerate(validation.networks):
            db.execute(
                "INSERT INTO validation_networks VALUES (?,?,?,?,?,?,?,?)",
                [
                    validation_id,
                    position,
                    item.architecture.to_json(),
                    item.estimate.ms,
                    item.estimate.ci_low_ms,
                    item.estimate.ci_high_ms,
                    item.measured_first_ms,
                    item.measured_second_ms,
                ],
            )
    return validation_id


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
