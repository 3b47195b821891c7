"""Whole networks, measured and estimated: how far a table can be trusted.

Networks are sampled from the table's space by a fixed sampler, and each is measured in two
passes of several rounds (``measure.networks``), so that drift of the machine falls on all of
them alike; the second pass comes after the first, so that the difference between them is the noise
an estimate cannot beat.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

from latlut.engines import run_environment
from latlut.engines.base import Engine
from latlut.errors import CalibrationError, MissingEntryError
from latlut.measure.networks import NetworkReadings, NetworkTimer
from latlut.measure.timing import TimingSettings
from latlut.operators.graph_cache import GraphCache
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.pricing.calibration import stored as stored_calibration
from latlut.pricing.estimator import Estimate, calibrated, estimate
from latlut.progress import Progress
from latlut.spaces.checking import check_network
from latlut.spaces.fasterseg import FasterSegSpace
from latlut.spaces.onnx_files import OnnxNetwork
from latlut.spaces.space import Space, SpaceNetwork
from latlut.stats.agreement import MIN_NETWORKS, Agreement, agreement, finite_or_none
from latlut.table import validations
from latlut.table.calibrations import fitted_networks
from latlut.table.history import usual_sentinels
from latlut.table.space import TableSpace
from latlut.table.subgraphs import learn_graphs
from latlut.table.table import LatencyTable
from latlut.validation.measured import MeasuredNetwork
from latlut.validation.scores import Scores, score
from latlut.validation.trends import Trend, trends


@dataclass(frozen=True)
class ValidationSettings:
    """How networks are measured: ``rounds`` per pass, two passes; ``seed`` of sampler and order.

    ``group`` networks are timed side by side.
    """

    networks: int = 60
    rounds: int = 3
    seed: int = 0
    group: int = 6
    timing: TimingSettings = field(
        default_factory=lambda: TimingSettings(
            min_samples=8, max_samples=400, min_time_s=0.06, time_cap_s=0.15, warmup_cap_s=0.15,
            burst_s=0.02,
        )
    )  # fmt: skip


@dataclass(frozen=True, repr=False)
class Validation:
    """The networks, what they say together, and the readings that it rests on.

    ``plain`` is of the sums of entries; ``scores`` of plain and calibrated estimates side by side,
    None without a calibration. Networks that a calibration was fitted on are in neither.
    """

    networks: tuple[MeasuredNetwork, ...]
    plain: Agreement
    scores: Scores | None
    sampler: str
    readings: NetworkReadings

    @property
    def agreement(self) -> Agreement:
        """Of what the table says: calibrated where it has a calibration."""
        return self.plain if self.scores is None else self.scores.calibrated

    @property
    def judged(self) -> tuple[MeasuredNetwork, ...]:
        """The networks that no calibration was fitted on."""
        return tuple(item for item in self.networks if not item.is_fitted)

    def __repr__(self) -> str:
        found = self.agreement
        return (
            f"<Validation of {found.n} networks: r {found.r:.4f}, mean absolute error "
            f"{found.mape_percent:.2f}%, noise limit {found.noise_floor_mape_percent:.2f}%>"
        )

    def trends(self) -> tuple[Trend, ...]:
        """How the errors of the judged networks depend on what the networks are."""
        calibrated_ms = None if self.scores is None else [item.estimate.ms for item in self.judged]
        return trends(self.judged, calibrated_ms)

    def worst(self, count: int = 3) -> list[MeasuredNetwork]:
        """The networks whose estimates are furthest off."""
        return sorted(self.judged, key=lambda item: -abs(item.error_percent))[:count]


def estimate_all(
    networks: Sequence[SpaceNetwork], table: LatencyTable, where: TableSpace
) -> list[Estimate]:
    """Every network's plain sum of its own entries; nothing may be missing or substituted.

    Raises:
        SpecError: a network whose graph and op specs disagree.
        MissingEntryError: lists what the table lacks, and the command that adds it.
    """
    estimates = []
    missing: dict[str, None] = {}
    for number, network in enumerate(networks):
        place = f"network {number}"
        specs: Sequence[OpSpec]
        if isinstance(network, OnnxNetwork):  # its pieces are no graph of operators
            specs = network.op_specs(where.input_size, where.batch)
        else:
            specs = check_network(where.space.name, network, where.input_size, where.batch, place)
        missing.update({spec.key: None for spec in specs if spec not in table})
        estimates.append(estimate(specs, table, is_calibrated=False, allow_missing=True))
    if missing:
        listed = "\n  ".join(list(missing)[:5])
        more = f"\n  and {len(missing) - 5} more" if len(missing) > 5 else ""
        adding = (
            table.command("profile", *_naming(where.space), "--input", where.size_text)
            + ", or the plan the table was made with"
            if where.size_text
            else table.command("profile", "--onnx", "FILE") + " for each of the files"
        )
        raise MissingEntryError(
            f"{table.title} lacks {len(missing)} operator configurations of these "
            f"networks:\n  {listed}{more}\n"
            f"add them with: {adding}"
        )
    return estimates


def _naming(space: Space) -> list[str]:
    """How ``latlut profile`` is told of a space: its plan, or the file that it comes from."""
    if space.name == FasterSegSpace.name:
        return ["--plan", space.name]
    return ["--space", str(sys.modules[type(space).__module__].__file__)]


def _too_few(
    count: int, fitted: int, where: TableSpace, settings: ValidationSettings
) -> CalibrationError:
    """The refusal of fewer networks than say anything, before they are measured."""
    why = (
        f"{fitted} of these {count} networks are those that the calibration was fitted on, and it "
        "can only be judged on others"
        if fitted
        else f"{count} networks say too little of a table"
    )
    if where.size_text is None:
        more = "name more files; a single one is measured by latlut bench"
    else:
        more = f"measure others with another --seed, not {settings.seed}, or more with --networks"
    return CalibrationError(f"{why}: it takes {MIN_NETWORKS}\n{more}")


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
        CalibrationError: the table's calibration cannot be applied, or fewer than 3 networks are
            left without those that it was fitted on (before measuring).
        ParityError: the engine computes another network than PyTorch.
    """
    networks = where.space.sample_many(settings.networks, settings.seed)
    plain = estimate_all(networks, table, where)
    stored_calibration(table)  # one that cannot be applied is refused before measuring
    fitted = fitted_networks(table)
    is_fitted = [network.to_json() in fitted for network in networks]
    if len(networks) - sum(is_fitted) < MIN_NETWORKS:
        raise _too_few(len(networks), sum(is_fitted), where, settings)
    workloads = [
        _workload(network, where, f"network {index}") for index, network in enumerate(networks)
    ]
    timing = replace(settings.timing, statistic=table.identity.statistic)
    sentinels = usual_sentinels(table)
    learn_graphs(table, sentinels)
    timer = NetworkTimer(engine, timing, sentinels, cache, settings.group)
    readings = timer.passes(workloads, settings.rounds, settings.seed, listener)
    measured = tuple(
        MeasuredNetwork(*item)
        for item in zip(networks, plain, *(p.tolist() for p in readings.passes_ms()), strict=True)
    )
    return judge(measured, table, readings, where.space.describe_sampler(), settings.seed)


def judge(
    measured: Sequence[MeasuredNetwork],
    table: LatencyTable,
    readings: NetworkReadings,
    sampler: str,
    seed: int = 0,
) -> Validation:
    """What measured networks say of a table: of its plain sums, and of its calibration.

    Args:
        measured: with the plain sums of the table.
        table: whose calibration is judged, if it has one, on networks that it was not fitted on.
        readings: of these networks.
        sampler: how they were chosen.
        seed: of the bootstrap.

    Raises:
        SpecError: fewer than three networks that no calibration was fitted on.
    """
    calibration = stored_calibration(table)
    fitted = fitted_networks(table)
    results = tuple(
        replace(
            item,
            calibrated=None if calibration is None else calibrated(item.plain, calibration),
            is_fitted=item.architecture.to_json() in fitted,
        )
        for item in measured
    )
    judged = [item for item in results if not item.is_fitted]
    found = agreement(
        [item.plain.ms for item in judged],
        [item.measured_first_ms for item in judged],
        [item.measured_second_ms for item in judged],
        seed=seed,
    )
    scores = None
    if calibration is not None:
        scores = score(judged, [item.estimate for item in judged], seed)
    return Validation(results, found, scores, sampler, readings)


def _workload(network: SpaceNetwork, where: TableSpace, name: str) -> Workload:
    """What the engine runs: the network's own file, or its graph of operators."""
    if isinstance(network, OnnxNetwork) and network.workload is not None:
        return network.workload
    return Workload.from_nodes(network.nodes(where.input_size, where.batch), name)


def store(
    table: LatencyTable, validation: Validation, settings: ValidationSettings, where: TableSpace
) -> int:
    """Keep the validation in the table's file; its id."""
    agreements = validation.agreement.to_dict() | {
        "speed_factor": finite_or_none(validation.readings.speed_factor),
    }
    if validation.scores is not None:
        agreements |= {"plain": validation.plain.to_dict(), "covered": validation.scores.covered}
    pairs = zip(
        validation.readings.readings_ms.tolist(), validation.readings.speeds.tolist(), strict=True
    )
    rounds = [
        json.dumps({"readings_ms": readings_ms, "speeds": list(map(finite_or_none, speeds))})
        for readings_ms, speeds in pairs
    ]
    rows = [
        {
            "architecture": item.architecture.to_json(),
            "estimated_ms": item.estimate.ms,
            "ci_low_ms": item.estimate.ci_low_ms,
            "ci_high_ms": item.estimate.ci_high_ms,
            "measured_first_ms": item.measured_first_ms,
            "measured_second_ms": item.measured_second_ms,
            "plain_ms": item.plain.ms,
            "readings": readings,
        }
        for item, readings in zip(validation.networks, rounds, strict=True)
    ]
    return validations.store(
        table,
        rows,
        seed=settings.seed,
        sampler=validation.sampler,
        settings=json.dumps(asdict(settings)),
        environment=json.dumps(run_environment()),
        agreement=json.dumps(agreements),
        input_size=where.size_text,
        batch=where.batch,
        cpu_share=validation.readings.cpu_share,
    )
