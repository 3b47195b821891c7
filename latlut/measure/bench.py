"""The latency of whole networks on an engine, by the same statistics as profiling.

Several passes, each with a fresh session: warm up, then sample until the statistic's interval is
narrow or time is up. The latency is the median over passes; its interval comes from the spread
between passes and is never narrower than the samples' own. Several networks are measured in one
go, in random order within each pass, so that drift of the machine falls on all of them alike.

Inside the clock is what the graph holds, and nothing else: inputs and outputs lie on the device,
copies to and from it are outside. Whether enlarging the logits to the image's size and taking the
best class are inside depends on the graph; ``ClockContents`` says so.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import nn

from latlut.engines.base import Engine, Session
from latlut.errors import DeviceLostError, EngineError, LatlutError, SpecError
from latlut.measure.bench_result import BenchResult, ClockContents, PaperReading
from latlut.measure.cpu_share import CpuShare, watching_cpu
from latlut.measure.device_warmup import ClockMhz, clock_of, warm_device
from latlut.measure.opening import Opening
from latlut.measure.supervising import Supervision
from latlut.measure.timing import TimingSettings, garbage_collection_paused, measure
from latlut.operators.graph_cache import GraphCache
from latlut.operators.onnx_files import read_onnx
from latlut.operators.workloads import Workload
from latlut.progress import Progress
from latlut.stats.machine_speed import is_disturbed, is_host_bound
from latlut.stats.passes import combine_passes
from latlut.stats.quantiles import Interval, statistic_interval
from latlut.stats.sampling import Sampling

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
#: Half-width of the interval above which a result is remarked on.
WIDE_INTERVAL = 0.05
PAPER_WARMUP_RUNS = 10
PAPER_SECONDS = 6.0


@dataclass(frozen=True)
class BenchSettings:
    """How networks are measured.

    ``passes`` with a fresh session each; ``timing`` of one pass, whose statistic is the result's;
    ``seed`` of the order within a pass; ``is_checked`` whether outputs are compared with the
    workload's reference before anything is timed; ``has_paper_protocol`` whether each network is
    measured by ``paper_reading`` too, after the passes.
    """

    passes: int = 5
    timing: TimingSettings = field(
        default_factory=lambda: TimingSettings(
            min_samples=10, max_samples=2000, min_time_s=0.5, time_cap_s=1.5, warmup_cap_s=1.0
        )
    )
    seed: int = 0
    is_checked: bool = True
    has_paper_protocol: bool = False

    def __post_init__(self) -> None:
        if self.passes < 1:
            raise SpecError(f"passes must be at least 1, received {self.passes}")


def bench_onnx(
    engine: Engine,
    source: str | Path | bytes,
    input_size: tuple[int, int] | None = None,
    batch: int | None = None,
    settings: BenchSettings | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    data: Mapping[str, np.ndarray] | None = None,
) -> BenchResult:
    """The latency of an ONNX file; see ``read_onnx`` and ``bench_workload``.

    Args:
        engine: one that reads ONNX; the caller holds its device (``measuring_on``).
        source: the file, or a serialised model.
        input_size: (height, width), where the file leaves them open.
        batch: where the file leaves it open.
        settings: how it is measured.
        shapes: input -> its shape, where those two do not settle it.
        data: input -> what it is filled with; random values if not given.

    Raises:
        ImportFileError: no such file, or no model that can be run.
        SpecError: sizes that are open and not given, or fixed otherwise in the file.
        EngineError: the engine reads no ONNX, or rejects the graph.
    """
    workload = read_onnx(source, input_size, batch, shapes=shapes, data=data)
    return bench_workload(engine, workload, settings)


def bench_module(
    engine: Engine,
    module: nn.Module,
    input_size: tuple[int, int],
    batch: int = 1,
    settings: BenchSettings | None = None,
    name: str = "",
) -> BenchResult:
    """The latency of a module that takes an image (B, 3, H, W); see ``bench_workload``.

    Args:
        engine: the caller holds its device (``measuring_on``).
        module: in evaluation mode; exported for engines that read ONNX.
        input_size: (height, width) of the image in pixels.
        batch: images per inference, B.
        settings: how it is measured.
        name: what to call it; its class's name if not given.

    Raises:
        SpecError: the module is in training mode.
        EngineError: it cannot be exported, or the engine rejects it.
    """
    shape = (batch, 3, *input_size)
    workload = Workload.from_module(module, [shape], name or type(module).__name__)
    return bench_workload(engine, workload, settings)


def bench_workload(
    engine: Engine,
    workload: Workload,
    settings: BenchSettings | None = None,
    *,
    cache: GraphCache | None = None,
    listener: Callable[[Progress], None] | None = None,
    supervision: Supervision | None = None,
) -> BenchResult:
    """The latency of one workload; see ``bench_workloads``."""
    (result,) = bench_workloads(
        engine, [workload], settings, cache=cache, listener=listener, supervision=supervision
    )
    return result


def bench_workloads(
    engine: Engine,
    workloads: Sequence[Workload],
    settings: BenchSettings | None = None,
    *,
    cache: GraphCache | None = None,
    listener: Callable[[Progress], None] | None = None,
    failed: Callable[[Workload, LatlutError], None] | None = None,
    supervision: Supervision | None = None,
) -> list[BenchResult]:
    """The latencies of networks, measured in turns over the same time.

    Args:
        engine: runs them; the caller holds its device (``measure.held_device.measuring_on``).
        workloads: what to measure.
        settings: how.
        cache: of exported graphs.
        listener: told of each reading.
        failed: told of a workload that cannot be run, which is left out then; without it the
            error is raised.
        supervision: of this process; told what is measured. A workload that a process died in
            before is not run again.

    Returns:
        One result per workload that could be run, in their order.

    Raises:
        EngineError: the engine rejects a workload, or a process died in it before.
        ParityError: it computes something else than the workload's reference.
        SpecError: the paper's protocol is asked for with a batch other than 1.
    """
    settings = settings or BenchSettings()
    if settings.has_paper_protocol:
        for workload in workloads:
            check_paper_batch(workload)
    with clock_of(engine) as clock_mhz:
        runs = [
            _Run(engine, workload, cache or GraphCache(), settings, clock_mhz)
            for workload in workloads
        ]
        left_out = _visit_all(runs, settings, listener, failed, supervision or Supervision())
    runs = [run for number, run in enumerate(runs) if number not in left_out]
    if not runs:
        return []
    readings = np.array([run.readings_ms for run in runs])
    combined = combine_passes(readings)
    return [
        run.result(float(combined.value[line]), float(combined.half_width[line]))
        for line, run in enumerate(runs)
    ]


def _visit_all(
    runs: Sequence[_Run],
    settings: BenchSettings,
    listener: Callable[[Progress], None] | None,
    failed: Callable[[Workload, LatlutError], None] | None,
    supervision: Supervision,
) -> set[int]:
    """Measure in turns; the numbers of those that failed."""
    order, done = list(range(len(runs))), 0
    left_out: set[int] = set()
    visits = settings.passes + settings.has_paper_protocol
    for index in range(visits):
        random.Random(f"{settings.seed}/{index}").shuffle(order)
        for number in order:
            done += 1
            if number in left_out:
                continue
            name = runs[number].workload.name
            try:
                with supervision.working_on(name):
                    ms = runs[number].visit(is_paper=index == settings.passes)
            except LatlutError as error:
                if failed is None or isinstance(error, DeviceLostError):
                    raise
                left_out.add(number)
                failed(runs[number].workload, error)
                continue
            if listener is not None:
                share = runs[number].last_share
                listener(Progress(done, visits * len(runs), index, name, ms, share))
    return left_out


def check_paper_batch(workload: Workload) -> None:
    """Refuse, with SpecError, a batch that the paper's protocol does not have."""
    batch = workload.batch
    if batch != 1:
        received = "an input whose batch is not known" if batch is None else batch
        raise SpecError(
            f"{workload.name}: the paper's protocol has batch 1, received {received}: leave the "
            "protocol or the batch out"
        )


def paper_reading(session: Session, seconds: float = PAPER_SECONDS) -> PaperReading:
    """The FasterSeg authors' protocol: 10 runs to warm up, then the mean of about six seconds.

    The number of runs is doubled until they take more than a second, and chosen from that. The
    authors put one clock around all runs; here the runs' own durations are added, so that what the
    loop itself costs is not counted.

    Args:
        session: with inputs set; of batch 1.
        seconds: of run time that the mean is taken over.

    Source: FasterSeg, Sec. 4.1, and ``compute_latency_ms_tensorrt`` of the authors' release.
    """
    with garbage_collection_paused():
        session.sample_ns(PAPER_WARMUP_RUNS)
        count, elapsed_s = 1, 0.0
        while elapsed_s < min(1.0, seconds / 2):
            elapsed_s = float(session.sample_ns(count).sum()) / 1e9
            count *= 2
        count = max(1, round(count / 2 / elapsed_s * seconds))
        durations = session.sample_ns(count)
    return PaperReading(float(durations.mean()) / 1e6, count, float(durations.sum()) / 1e9)


class _Run:
    """One workload's measurement so far."""

    def __init__(
        self,
        engine: Engine,
        workload: Workload,
        cache: GraphCache,
        settings: BenchSettings,
        clock_mhz: ClockMhz | None,
    ) -> None:
        self.engine, self.workload, self.settings = engine, workload, settings
        self._clock_mhz = clock_mhz
        self._host_shares: list[float] = []
        self._launches: list[str] = []
        self._opening = Opening(engine, workload, cache)
        self._samplings: list[Sampling] = []
        self._shares: list[float] = []
        self._contents: ClockContents | None = None
        self._paper: PaperReading | None = None

    @property
    def readings_ms(self) -> list[float]:
        """One per pass."""
        return [sampling.interval_ms.value for sampling in self._samplings]

    def visit(self, is_paper: bool) -> float:
        """A fresh session's reading, milliseconds; the first one is checked before it is timed."""
        is_first = self._contents is None
        opened = self._opening.open(is_checked=is_first and self.settings.is_checked)
        with opened as session:
            if is_first:
                if not self.settings.is_checked:
                    session.run()
                shapes = tuple(tuple(array.shape) for array in session.outputs())
                self._contents = ClockContents.of(self.workload, shapes)
            if is_paper:
                with watching_cpu(self.engine) as share:
                    self._paper = paper_reading(session)
                self._note_share(share)
                return self._paper.mean_ms
            warm = warm_device([session.sample_ns], self._clock_mhz) if self._clock_mhz else None
            with watching_cpu(self.engine) as share:
                sampling = measure(session.sample_ns, self.settings.timing, self.engine.resolution)
            self._note_launches(session)
        if warm is not None and not warm.is_steady:
            sampling = replace(sampling, is_steady=False)
        self._note_share(share)
        self._samplings.append(sampling)
        return sampling.interval_ms.value

    @property
    def last_share(self) -> float | None:
        """Of the CPU, in the latest visit; None where it is not known."""
        return self._shares[-1] if self._shares else None

    def _note_share(self, share: CpuShare) -> None:
        if share.value is not None:
            self._shares.append(share.value)

    def _note_launches(self, session: Session) -> None:
        if session.host_share is not None:
            self._host_shares.append(session.host_share)
        if session.launch is not None:
            self._launches.append(session.launch)

    @property
    def _host_share(self) -> float | None:
        return float(np.median(self._host_shares)) if self._host_shares else None

    def result(self, latency_ms: float, spread: float) -> BenchResult:
        """The result, from the median over passes and the half-width that their spread gives."""
        contents = self._contents
        if contents is None:
            raise EngineError(f"{self.workload.name} was not measured")
        samples_ms = np.concatenate([item.samples_ns for item in self._samplings]) / 1e6
        half_width = self._half_width(spread)
        # Others make it slower, by more than the share that they took where threads wait for each
        # other, and never faster: what is known then is an upper end.
        share = min(self._shares, default=None)
        low_ms = math.nan if is_disturbed(share) else latency_ms * math.exp(-half_width)
        ranks = np.percentile(samples_ms, PERCENTILES, method="median_unbiased")
        return BenchResult(
            name=self.workload.name,
            batch=self.workload.batch,
            statistic=self.settings.timing.statistic,
            latency_ms=latency_ms,
            ci_low_ms=low_ms,
            ci_high_ms=latency_ms * math.exp(half_width),
            readings_ms=tuple(self.readings_ms),
            percentiles_ms=dict(zip(PERCENTILES, ranks.tolist(), strict=True)),
            mean_ms=float(samples_ms.mean()),
            samples=len(samples_ms),
            contents=contents,
            engine=_engine_facts(self.engine),
            difference=self._opening.difference,
            reference=self.workload.reference,
            arithmetic=self.workload.arithmetic,
            cpu_share=share,
            host_share=self._host_share,
            launch="; ".join(dict.fromkeys(self._launches)) or None,
            warnings=self._warnings(half_width),
            paper=self._paper,
            samples_ms=tuple(tuple((item.samples_ns / 1e6).tolist()) for item in self._samplings),
        )

    def _half_width(self, spread: float) -> float:
        """Log half-width of the interval: as in a table's entries, one sitting gives none."""
        if not math.isfinite(spread):
            return math.nan
        parts = [
            sampling.samples_ns / (sampling.interval_ms.value * 1e6) for sampling in self._samplings
        ]
        own: Interval = statistic_interval(np.concatenate(parts), self.settings.timing.statistic)
        within = own.half_width + 1e3 * self.engine.resolution.error_s / min(self.readings_ms)
        return max(spread, within) if math.isfinite(within) else spread

    def _warnings(self, half_width: float) -> tuple[str, ...]:
        found = []
        if not math.isfinite(half_width):
            found.append("interval unknown after one pass")
        elif half_width > WIDE_INTERVAL:
            found.append(
                f"interval ±{100 * half_width:.1f}%: something else is using the device, or its "
                "clock changes"
            )
        unsteady = sum(not sampling.is_steady for sampling in self._samplings)
        if 2 * unsteady > len(self._samplings):
            found.append("warm-up did not settle")
        if is_host_bound(self._host_share):
            found.append(
                f"the host takes {100 * (self._host_share or 0.0):.0f}% of a run's time to launch "
                "it: the latency may be the host's, not the GPU's"
            )
        return tuple(found)


def _engine_facts(engine: Engine) -> dict[str, object]:
    return {
        "name": engine.name,
        "title": engine.title,
        "version": engine.version,
        "precision": engine.precision,
        "threads": engine.threads,
        "options": engine.options_text,
        "device": engine.device.model,
        "driver": engine.device.driver,
        **engine.facts(),
    }
