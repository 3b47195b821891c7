"""The worker: holds one device, measures leases, writes nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from latlut.cluster.messages import Hello, Lease, LeaseResult, Lost, WorkerJob
from latlut.engines import engine_class, run_environment
from latlut.engines.base import Engine
from latlut.errors import DeviceLostError, LatlutError, TargetError
from latlut.machine.cpu import cpu_ranges
from latlut.machine.gpu_state import GpuMonitor
from latlut.machine.gpus import DetectedGpu, detect_gpus, resolve_gpu, target_of
from latlut.machine.targets import Target, cpu_target, load_target
from latlut.measure.attempts import Attempts
from latlut.measure.groups import GroupTimer
from latlut.measure.held_device import measuring_on
from latlut.measure.parts import Part
from latlut.measure.sentinels import Sentinels, open_sentinels
from latlut.measure.stopwatch import Stopwatch
from latlut.measure.sweep_settings import check_mode, check_rebuilds, identity_of
from latlut.operators import subgraph_store
from latlut.operators.graph_cache import GraphCache
from latlut.operators.own_modules import import_own_modules
from latlut.operators.registry import check
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.version import __version__


class LeaseWorker:
    """Measures leases on one device.

    Args:
        job: what every worker knows.
        slot: which of the workers on its machine: they are pinned to CPUs of their own.
        attempts: told which op spec is worked on.
        workload_of: an op spec's workload.
    """

    def __init__(
        self,
        job: WorkerJob,
        slot: Part,
        attempts: Attempts | None = None,
        workload_of: Callable[[OpSpec], Workload] = Workload.from_spec,
    ) -> None:
        self._job, self._slot = job, slot
        self._attempts, self._workload_of = attempts, workload_of
        self._held, self._pass = ExitStack(), ExitStack()
        self._pass_index: int | None = None
        self._openings = 0
        self._failures: dict[OpSpec, str] = {}

    def open(self) -> Hello | Lost:
        """Take the device. Its lock and the pinning last until ``close`` or the process's end."""
        try:
            return self._open()
        except LatlutError as error:
            return Lost(str(error), is_final=True)

    def measure(
        self, lease: Lease, sentinels: tuple[OpSpec, ...], graphs: Mapping[str, bytes] | None = None
    ) -> LeaseResult | Lost:
        """Time a lease's op specs side by side, beside the sentinels.

        Args:
            graphs: those of pieces of ONNX files among them, by digest.
        """
        for digest, content in (graphs or {}).items():
            subgraph_store.keep(subgraph_store.read(digest, content))
        try:
            if lease.pass_index != self._pass_index:
                self._open_pass(lease.pass_index, sentinels)
            return self._measure(lease)
        except DeviceLostError as error:
            return Lost(str(error), is_final=True)

    def close(self) -> None:
        """Give the device back."""
        self._pass.close()
        self._held.close()

    def _open(self) -> Hello:
        job = self._job
        self._import_own_modules()
        environment = dict(run_environment())
        engine, target = self._engine()
        check_rebuilds(engine, job.settings.rebuilds)
        mode = job.mode or engine.default_mode
        check_mode(engine, mode)
        statistic = job.settings.timing.statistic
        identity = identity_of(engine, target.name, statistic=statistic, mode=mode)
        cpus = self._held.enter_context(measuring_on(engine, self._slot))
        uuid = engine.device.uuid
        monitor = self._held.enter_context(GpuMonitor(uuid)) if uuid else None
        self._timer = GroupTimer(
            engine, job.settings.timing, GraphCache(), Stopwatch(), {}, self._fail, monitor, mode,
            self._attempts, self._workload_of,
        )  # fmt: skip
        host = str(environment.get("host"))
        return Hello(
            __version__,
            identity,
            uuid or host,
            f"{host}, process {os.getpid()}, {uuid or f'CPUs {cpu_ranges(cpus)}'}",
            environment | {"engine_facts": engine.facts()},
            engine.launch_floor_ms(),
            (
                target.peak_flops_per_s(engine.arithmetic),
                target.bandwidth_bytes_per_s,
                target.cache_bandwidth_bytes_per_s,
            ),
            monitor.snapshot() if monitor else None,
        )

    def _import_own_modules(self) -> None:
        folder = Path(self._held.enter_context(tempfile.TemporaryDirectory(prefix="latlut-")))
        for name, text in self._job.own_modules:
            if text is not None:
                name = str(folder / Path(name).name)
                Path(name).write_text(text, encoding="utf-8")
            import_own_modules([name])

    def _engine(self) -> tuple[Engine, Target]:
        """The engine on this worker's device, and the target.

        Raises:
            TargetError: the GPU is of another model.
        """
        job, device, target = self._job, "cpu", None
        if job.gpu is not None:
            found = resolve_gpu(job.gpu, self._gpus())
            device = found.uuid
            target = load_target(job.gpu) if Path(job.gpu).suffix else target_of(found)
        kind = engine_class(job.engine)
        engine = kind(job.threads, job.precision, device, dict(job.options))
        return engine, target or cpu_target(job.threads)

    def _gpus(self) -> list[DetectedGpu]:
        """The GPUs that this worker may take: Ray shows it one alone."""
        from latlut.engines.cuda.devices import cuda_devices

        mine = {shown.uuid for shown in cuda_devices()[:1]}
        here = [gpu for gpu in detect_gpus() if gpu.uuid in mine]
        if not here:
            raise TargetError("CUDA shows this worker no GPU")
        return here

    def _measure(self, lease: Lease) -> LeaseResult:
        self._failures = {}
        for spec in lease.specs:
            self._check(spec)
        group = self._sentinels.groups
        timed = self._timer.time(lease.specs, lease.build, self._sentinels.samplers)
        is_slow = self._sentinels.add(timed.readings)
        return LeaseResult(
            lease,
            self._openings,
            group,
            timed.found,
            self._failures,
            tuple(self._sentinels.take_new()),
            is_slow,
            timed.state,
            timed.cpu_share,
        )

    def _check(self, spec: OpSpec) -> None:
        check(spec)

    def _open_pass(self, index: int, sentinels: tuple[OpSpec, ...]) -> None:
        """Fresh sessions of the sentinels, as each pass of a sweep has them."""
        self._pass.close()
        timing = self._job.settings.timing
        opened = open_sentinels(self._timer, sentinels, timing, self._pass)
        self._sentinels = Sentinels(opened, timing.statistic)
        self._pass_index = index
        self._openings += 1

    def _fail(self, spec: OpSpec, error: Exception) -> None:
        self._failures[spec] = str(error) or type(error).__name__
