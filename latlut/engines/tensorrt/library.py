"""TensorRT as a library on one GPU: engines built or taken from the cache, loaded, and timed.

One implementation over two modules, ``tensorrt`` and ``tensorrt_rtx``. What is there and what can
be set is in ``engine``, building in ``build``, running in ``session``, files in ``cache``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from latlut.engines import precision as converting
from latlut.engines.base import Engine
from latlut.engines.cuda.clock import CacheFlush, GpuClock, launch_floor_ms
from latlut.engines.cuda.devices import cuda_index
from latlut.engines.cuda.driver import compute_capability, l2_cache_bytes
from latlut.engines.cuda.graphs import ENQUEUED, REPLAYED
from latlut.engines.cuda.memory import DeviceBuffer, open_memory
from latlut.engines.device_errors import engine_error
from latlut.engines.precision import half_precision, quantized
from latlut.engines.resolution import Resolution
from latlut.engines.tensorrt import build as building
from latlut.engines.tensorrt import int8
from latlut.engines.tensorrt.build import (
    Build,
    BuildSettings,
    build_engine,
    has_user_allocation,
    is_strongly_typed,
    log_recorder,
    made,
)
from latlut.engines.tensorrt.cache import CacheFile, EngineCache, digest_of
from latlut.engines.tensorrt.int8 import calibrator_of
from latlut.errors import DeviceLostError, EngineError
from latlut.files.writing import cache_folder
from latlut.operators.workloads import Workload

if TYPE_CHECKING:
    import tensorrt as trt


def _own_source_digest() -> str:
    """Hash of latlut's own files that shape a built engine."""
    sources = [inspect.getsource(module) for module in (converting, building, int8)]
    return digest_of("".join(sources).encode())[:16]


class Context(NamedTuple):
    """An execution context, and the memory that it works in where that is not its own."""

    context: trt.IExecutionContext
    memory: DeviceBuffer | None


class TensorRtLibrary(Engine):
    """What a session has of TensorRT: the module, the GPU's memory and clock, built engines.

    Attributes:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        capability: (major, minor), the GPU's compute capability.
        plans: engines that were built before.
        logger: what the library says.
    """

    chooses_tactics = True
    device_kinds = ("cuda",)

    module_name: ClassVar[str]
    #: Whether the builder measures tactics and keeps the times in a cache.
    has_timing_cache: ClassVar[bool] = True

    def __init__(
        self,
        threads: int = 1,
        precision: str = "fp32",
        device: str = "cpu",
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(threads, precision, device, options)
        self.module = import_module(self.module_name)
        workspace = self.options["workspace_mib"]
        self.settings = BuildSettings(
            precision,
            self.options["tf32"] == "on",
            None if workspace == "all" else int(workspace),
            int(self.options["optimization_level"]),
            is_captured=self.options["cuda_graph"] != "off",
        )
        self.logger = log_recorder(self.module)
        index = cuda_index(self.device)
        self.capability = compute_capability(index)
        self.memory = open_memory(index)
        is_cold = self.options["cold_l2"] == "on"
        flush = CacheFlush(self.memory, 2 * l2_cache_bytes(index)) if is_cold else None
        self.clock = GpuClock(self.memory, flush)
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
        with self.memory.current():
            _ = self.runtime  # what it cannot be made for is said once, not once per op spec

    def keep_caches_beside(self, table: Path) -> None:
        """Keep the timing cache beside the table: with it a sweep that goes on builds the same."""
        name = f"{table.stem}.{self.module_name}-{self.device.uuid[:12]}.timing"
        self._timing_file = CacheFile(table.with_name(name), self._made_by)
        self._timing = None

    @cached_property
    def runtime(self) -> trt.Runtime:
        """The library's runtime; what it says goes to ``logger``."""
        runtime: trt.Runtime = made(self.module.Runtime, self.logger, "runtime")
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
            raise engine_error(f"the engine cannot be loaded onto the GPU: {self.logger.said()}")
        return engine

    def _recipe(self, build: int) -> str:
        """All that shapes an engine beside its graph, the library and the GPU."""
        import onnxruntime

        own = f"latlut {_own_source_digest()} onnxruntime {onnxruntime.__version__}"
        return f"{self.settings} {own} build {build}"

    def _build(self, workload: Workload, graph: bytes, build: int) -> Build:
        calibrator = None
        if is_strongly_typed(self.module):
            graph = self._in_precision(workload, graph)
        elif self.precision == "int8":
            calibrator = calibrator_of(self.module, self.memory, [workload.random_inputs(seed=2)])
        is_cached = self.has_timing_cache and build == 0

        def build_with(settings: BuildSettings) -> Build:
            return build_engine(
                self.module,
                graph,
                settings,
                compute_capability=self.capability,
                timing_cache=self._timing_content() if is_cached else None,
                calibrator=calibrator,
            )

        try:
            built = build_with(self.settings)
        except DeviceLostError:
            raise
        except EngineError:
            if self.options["cuda_graph"] != "auto" or not has_user_allocation(self.module):
                raise
            # Sizes that depend on data need memory while they run: built so, it is not captured.
            built = build_with(replace(self.settings, is_captured=False))
        if built.timing_cache is not None and built.timing_cache != self._timing:
            self._timing = built.timing_cache
            self._timing_file.write(built.timing_cache)
        return built

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

    def context_of(self, engine: trt.ICudaEngine, build: int = 0) -> Context:
        """An execution context, with the memory that the engine needs while it runs.

        Raises:
            EngineError: the GPU has no memory for it.
        """
        if hasattr(self.module, "IRuntimeCache"):
            found = self._configured_context(engine, has_kernels=build == 0)
        else:
            found = Context(engine.create_execution_context(), None)
        if found.context is None:
            raise engine_error(f"no execution context: {self.logger.said()}")
        # Detailed as the engine is for its inspector, its marks for a tracer would cost time.
        found.context.nvtx_verbosity = self.module.ProfilingVerbosity.NONE
        return found

    def _configured_context(self, engine: Any, *, has_kernels: bool) -> Context:
        """TensorRT-RTX: kernels of earlier sessions, and memory that a CUDA graph may keep using.

        Kernels are compiled here, and every pass over a plan opens fresh sessions, which would
        compile the same anew. A context that allocates while it runs cannot be captured.
        Source: TensorRT-RTX documentation, "Working with Runtime Cache", IRuntimeConfig and
        IExecutionContext.set_device_memory.
        """
        config = engine.create_runtime_config()
        if has_kernels:
            if self._kernels is None:
                self._kernels = config.create_runtime_cache()
            config.set_runtime_cache(self._kernels)
        if not self.settings.is_captured:
            return Context(engine.create_execution_context(config), None)
        strategy = self.module.ExecutionContextAllocationStrategy.USER_MANAGED
        config.set_execution_context_allocation_strategy(strategy)
        context = engine.create_execution_context(config)
        memory = self.memory.allocate(engine.device_memory_size_v2)
        if context is not None:
            context.set_device_memory(memory.address, memory.nbytes)
        return Context(context, memory)

    @property
    def resolution(self) -> Resolution:
        """That of the GPU's events."""
        return self.clock.resolution

    def launch_floor_ms(self) -> float | None:
        """The median time of an empty kernel, launched and timed as everything else is."""
        if self._floor_ms is None:
            with self.memory.current():
                self._floor_ms = launch_floor_ms(self.memory, is_replayed=self.settings.is_captured)
        return self._floor_ms

    def facts(self) -> dict[str, str]:
        """What provides device memory, the clock, the launch floor and the timing cache's hash."""
        launch = {"on": REPLAYED, "off": ENQUEUED}.get(
            self.options["cuda_graph"], f"{REPLAYED} where one can be captured, else {ENQUEUED}"
        )
        floor_ms = self.launch_floor_ms()
        timing = self._timing_content() if self.has_timing_cache else b""
        return {
            "clock": f"CUDA events; runs by execute_async_v3: {launch}",
            "memory_backend": self.memory.title,
            "tf32": self.options["tf32"],
            "network": "strongly typed" if is_strongly_typed(self.module) else "builder flags",
            "compute_capability": f"{self.capability[0]}.{self.capability[1]}",
            "launch_floor_us": "" if floor_ms is None else f"{1000 * floor_ms:.3f}",
            "timing_cache_sha256": digest_of(timing) if timing else "",
            "cache_remarks": "; ".join(self.plans.remarks + self._timing_file.remarks),
        }
