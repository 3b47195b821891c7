"""TensorRT and TensorRT for RTX on an NVIDIA GPU: one implementation over two modules.

The class says what is there and what can be set; building is in ``trt_build``, running in
``trt_run``, files in ``trt_cache``, the versions' limits in ``trt_versions``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from latlut.engines.base import Availability, Device, Engine, EngineOption, Session
from latlut.engines.cuda.clock import GpuClock
from latlut.engines.cuda.devices import cuda_devices
from latlut.engines.cuda.driver import compute_capability, driver_cuda_version, l2_cache_bytes
from latlut.engines.cuda.memory import NO_MEMORY, memory_type, open_memory
from latlut.engines.device_errors import engine_error
from latlut.engines.precision import half_precision, quantized
from latlut.engines.tensorrt.build import (
    Build,
    BuildSettings,
    build_engine,
    check_capability,
    is_strongly_typed,
    log_recorder,
    quoted,
    release_of,
)
from latlut.engines.tensorrt.cache import CacheFile, EngineCache, digest_of
from latlut.engines.tensorrt.int8 import calibrator_of
from latlut.engines.tensorrt.session import PlanSession, TensorRtSession
from latlut.engines.tensorrt.versions import OLDEST, Release
from latlut.errors import EngineError
from latlut.files import cache_folder
from latlut.machine.gpus import detect_gpus, gpu_absence_reason
from latlut.operators.workloads import Workload

if TYPE_CHECKING:
    import tensorrt as trt

_OPTIONS = {
    "cuda_graph": EngineOption(("off", "on"), "replay a captured CUDA graph, without launch gaps"),
    "cold_l2": EngineOption(("off", "on"), "flush the GPU's cache before each run, untimed"),
    "tf32": EngineOption(("off", "on"), "TF32 arithmetic for fp32"),
    "workspace_mib": EngineOption(
        ("all", "16", "64", "256", "1024", "4096"), "scratch memory of a layer, MiB"
    ),
    "optimization_level": EngineOption(
        ("3", "0", "1", "2", "4", "5"), "effort of the builder, 0 to 5"
    ),
}


class TensorRtEngine(Engine):
    """TensorRT 8.6 to 11 on an NVIDIA GPU."""

    name = "tensorrt"
    title = "TensorRT"
    precisions = ("fp32", "fp16", "int8")
    session_type = TensorRtSession
    option_choices = _OPTIONS
    chooses_tactics = True
    device_kinds = ("cuda",)

    module_name: ClassVar[str] = "tensorrt"
    #: Whether the builder measures tactics and keeps the times in a cache.
    has_timing_cache: ClassVar[bool] = True
    install_command: ClassVar[str] = (
        "pip install 'latlut[tensorrt]'  or  pip install tensorrt  (its libraries come from "
        "NVIDIA's package index); for Pascal, the GTX 10 series, the 8.6 line: pip install "
        "'tensorrt==8.6.1', with NVIDIA's package index as --extra-index-url"
    )

    def __init__(
        self,
        threads: int = 1,
        precision: str = "fp32",
        device: str = "cpu",
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(threads, precision, device, options)
        self.module = import_module(self.module_name)
        self.release = release_of(self.module)
        workspace = self.options["workspace_mib"]
        self.settings = BuildSettings(
            precision,
            self.options["tf32"] == "on",
            None if workspace == "all" else int(workspace),
            int(self.options["optimization_level"]),
        )
        self.logger = log_recorder(self.module)
        self.memory = open_memory(self._index)
        is_cold = self.options["cold_l2"] == "on"
        self.clock = GpuClock(self.memory, 2 * l2_cache_bytes(self._index) if is_cold else 0)
        folder = cache_folder("tensorrt")
        self._made_by = {
            "library": f"{self.module_name} {self.version}",
            "device": f"{self.device.model} {self.capability[0]}.{self.capability[1]}",
        }
        self.plans = EngineCache(folder / "engines", self._made_by)
        self.plans.trim()
        self._timing_file = CacheFile(
            folder / f"{self.module_name}-{self.device.uuid}.timing", self._made_by
        )
        self._timing: bytes | None = None
        self._floor_ms: float | None = None
        self._kernels: Any = None

    # ---- what is here ----------------------------------------------------------------------

    @classmethod
    def availability(cls) -> Availability:
        """Whether module, driver, GPU and device memory are all here; the first that is not."""
        if find_spec(cls.module_name) is None:
            return Availability(
                False, None, f"the package {cls.module_name} is not installed", cls.install_command
            )
        try:
            release = release_of(import_module(cls.module_name))
        except (ImportError, OSError) as error:
            return Availability(
                False,
                None,
                f"{cls.module_name} is installed but cannot be imported: {error}",
                cls.install_command,
            )
        reason, remedy = cls._what_is_missing(release)
        return Availability(not reason, release.version, reason, remedy)

    @classmethod
    def _what_is_missing(cls, release: Release) -> tuple[str, str]:
        """(reason, remedy), empty where nothing is missing."""
        if release.numbers < OLDEST[cls.module_name]:
            return f"{cls.title} {release.version} is older than latlut drives", cls.install_command
        cuda = driver_cuda_version()
        if cuda is None or not cuda_devices():
            why = gpu_absence_reason() or "the driver shows CUDA no device (CUDA_VISIBLE_DEVICES?)"
            return (
                f"{cls.title} {release.version} is installed, but no GPU can be used: {why}",
                "install NVIDIA's driver until nvidia-smi lists the GPU, or choose another "
                "engine: --engine onnxruntime --cpu",
            )
        needed = release.cuda_major
        if needed is not None and cuda[0] < needed:
            stem = cls.module_name.replace("_", "-")
            return (
                f"the driver is too old: it runs CUDA up to {cuda[0]}.{cuda[1]}, "
                f"{cls.title} {release.version} is built for CUDA {needed}",
                f"update NVIDIA's driver, or install the build for the driver: "
                f"pip install {stem}-cu{cuda[0]}",
            )
        if memory_type() is None:
            return NO_MEMORY, "pip install pycuda"
        return "", ""

    @classmethod
    def device_names(cls) -> tuple[str, ...]:
        """Every GPU that CUDA shows to this process."""
        return tuple(f"cuda:{device.index}" for device in cuda_devices())

    def _find_device(self, name: str) -> Device:
        devices = cuda_devices()
        if name == "cpu":
            raise EngineError(f"{self.title} runs on GPUs only: name one with --gpu")
        for device in devices:
            # A Jetson's GPU has no UUID in the driver's tools: "integrated".
            if name in (f"cuda:{device.index}", device.uuid, "integrated"):
                self._index = device.index
                self.capability = compute_capability(device.index)
                module = import_module(self.module_name)
                release_of(module).check_gpu(device.name, self.capability)
                check_capability(module, self.capability)
                drivers = [gpu.driver for gpu in detect_gpus() if gpu.uuid in (device.uuid, name)]
                driver = drivers[0] if drivers else "unknown"
                return Device(f"cuda:{device.index}", device.name, driver, device.uuid)
        known = ", ".join(f"cuda:{device.index}" for device in devices)
        raise EngineError(f"{self.title} has no device {name!r}; it has {known}")

    # ---- building --------------------------------------------------------------------------

    def keep_caches_beside(self, table: Path) -> None:
        """Keep the timing cache beside the table: with it a sweep that goes on builds the same."""
        name = f"{table.stem}.{self.module_name}-{self.device.uuid[:12]}.timing"
        self._timing_file = CacheFile(table.with_name(name), self._made_by)
        self._timing = None

    @cached_property
    def runtime(self) -> trt.Runtime:
        """The library's runtime; what it says goes to ``logger``."""
        runtime: trt.Runtime = self.module.Runtime(self.logger)
        return runtime

    def built(self, workload: Workload, graph: bytes, build: int) -> trt.ICudaEngine:
        """The workload's engine on the GPU, from the cache or built now.

        Args:
            workload: names it, and gives the inputs that INT8 is calibrated on.
            graph: its float32 ONNX model.
            build: number of the independent build; all but 0 time every tactic anew.

        Raises:
            EngineError: the graph cannot be built, or the GPU has no memory for it.
        """
        self.logger.lines.clear()  # an error from here on is this engine's
        file = self.plans.file(graph, self._recipe(build))
        plan = file.read()
        engine = None if plan is None else self.runtime.deserialize_cuda_engine(plan)
        if engine is None:
            plan = self._build(workload, graph, build).plan
            file.write(plan)
            engine = self.deserialized(plan)
        return engine

    def deserialized(self, plan: bytes) -> trt.ICudaEngine:
        """A serialised engine, loaded onto the GPU.

        Raises:
            EngineError: it is damaged, of another version or GPU, or there is no memory for it.
        """
        engine = self.runtime.deserialize_cuda_engine(plan)
        if engine is None:
            said = quoted(self.logger.take(1), "no reason given")
            raise engine_error(f"the engine cannot be loaded onto the GPU: {said}")
        return engine

    def load_plan(self, workload: Workload, plan: bytes) -> Session:
        """A session that runs a serialised engine, such as ``built(...).serialize()`` gives.

        Args:
            workload: what the engine was built from; gives the inputs and what to compare with.
            plan: the content of the file.

        Raises:
            EngineError: see ``deserialized``.
        """
        return self._started(PlanSession(self, workload), None, plan)

    def _recipe(self, build: int) -> str:
        """All that shapes an engine beside its graph, the library and the GPU."""
        import onnxruntime

        return f"{self.settings} converter onnxruntime {onnxruntime.__version__} build {build}"

    def _build(self, workload: Workload, graph: bytes, build: int) -> Build:
        calibrator = None
        if is_strongly_typed(self.module):
            graph = self._in_precision(workload, graph)
        elif self.precision == "int8":
            calibrator = calibrator_of(self.module, self.memory, [workload.random_inputs(seed=2)])
        is_cached = self.has_timing_cache and build == 0
        made = build_engine(
            self.module,
            graph,
            self.settings,
            compute_capability=self.capability,
            timing_cache=self._timing_content() if is_cached else None,
            calibrator=calibrator,
        )
        if made.timing_cache is not None and made.timing_cache != self._timing:
            self._timing = made.timing_cache
            self._timing_file.write(made.timing_cache)
        return made

    def _in_precision(self, workload: Workload, graph: bytes) -> bytes:
        if self.precision == "fp16":
            return half_precision(graph)
        if self.precision == "int8":
            return quantized(graph, [workload.random_inputs(seed=2)])
        return graph

    def _timing_content(self) -> bytes:
        if self._timing is None:
            self._timing = self._timing_file.read() or b""
        return self._timing

    def context_of(self, engine: trt.ICudaEngine, build: int = 0) -> trt.IExecutionContext:
        """An execution context, with the memory that the engine needs while it runs.

        Raises:
            EngineError: the GPU has no memory for it.
        """
        if hasattr(self.module, "IRuntimeCache") and build == 0:
            context = self._context_with_kernels(engine)
        else:
            context = engine.create_execution_context()
        if context is None:
            said = quoted(self.logger.take(1), "no reason given")
            raise engine_error(f"no execution context: {said}")
        # Detailed as the engine is for its inspector, its marks for a tracer would cost time.
        context.nvtx_verbosity = self.module.ProfilingVerbosity.NONE
        return context

    def _context_with_kernels(self, engine: Any) -> Any:
        """TensorRT-RTX compiles kernels here; those of earlier sessions are taken again.

        Every pass over a plan opens fresh sessions, which would compile the same anew.
        Source: TensorRT-RTX documentation, "Working with Runtime Cache".
        """
        config = engine.create_runtime_config()
        if self._kernels is None:
            self._kernels = config.create_runtime_cache()
        config.set_runtime_cache(self._kernels)
        return engine.create_execution_context(config)

    # ---- timing ----------------------------------------------------------------------------

    def launch_floor_ms(self) -> float | None:
        """The median time of an empty kernel, launched and timed as everything else is."""
        if self._floor_ms is None:
            with self.memory.current():
                self._floor_ms = self.clock.floor_ms(is_replayed=self.options["cuda_graph"] == "on")
        return self._floor_ms

    def facts(self) -> dict[str, str]:
        """What provides device memory, the clock, the launch floor and the timing cache's hash."""
        replayed = self.options["cuda_graph"] == "on"
        floor_ms = self.launch_floor_ms()
        timing = self._timing_content() if self.has_timing_cache else b""
        return {
            "clock": "CUDA events around "
            + ("the replay of a CUDA graph" if replayed else "execute_async_v3"),
            "memory_backend": self.memory.title,
            "tf32": self.options["tf32"],
            "network": "strongly typed" if is_strongly_typed(self.module) else "builder flags",
            "compute_capability": f"{self.capability[0]}.{self.capability[1]}",
            "launch_floor_us": "" if floor_ms is None else f"{1000 * floor_ms:.3f}",
            "timing_cache_sha256": digest_of(timing) if timing else "",
            "cache_remarks": "; ".join(self.plans.remarks + self._timing_file.remarks),
        }


class TensorRtRtxEngine(TensorRtEngine):
    """TensorRT for RTX: builds ahead for a GPU's generation and compiles kernels when loaded."""

    name = "tensorrt-rtx"
    title = "TensorRT-RTX"
    module_name = "tensorrt_rtx"
    # "Timing cache operations are no-ops in TensorRT-RTX", says the library since 1.2.
    has_timing_cache = False
    install_command = "pip install tensorrt-rtx-cu13  (drivers for CUDA 12: tensorrt-rtx-cu12)"
