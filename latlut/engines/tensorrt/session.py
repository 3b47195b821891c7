"""Running a TensorRT engine: buffers that stay on the GPU, CUDA events around each run.

What is timed is the replay of a CUDA graph that holds one ``execute_async_v3``, or that call itself
where nothing can be captured. Copies, and flushing the cache where that is asked for, happen
outside the two events of a reading. Without a CUDA graph an operator that is shorter than the
host's enqueuing reads as long as the enqueuing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from latlut.engines.base import LayerTime, Session
from latlut.engines.cuda.driver import CapturedGraph
from latlut.engines.cuda.graphs import captured
from latlut.engines.cuda.memory import DeviceBuffer
from latlut.engines.device_errors import engine_error
from latlut.engines.tensorrt.layers import layer_times, recorder_of
from latlut.engines.tensorrt.library import TensorRtLibrary
from latlut.errors import DeviceLostError, EngineError

if TYPE_CHECKING:
    import tensorrt as trt
    from torch import nn

_WARMUP_RUNS = 3


class TensorRtSession(Session):
    """One execution context with its buffers."""

    engine: TensorRtLibrary

    def _open(self, module: nn.Module | None, graph: bytes | None) -> None:
        if graph is None:
            raise EngineError(f"{self.workload.name}: TensorRT reads ONNX and was given none")
        self._memory = self.engine.memory
        self._replay: Any = None
        try:
            with self._memory.current():
                self._cuda_engine = self._engine_of(graph)
                self._context, self._scratch = self.engine.context_of(self._cuda_engine, self.build)
                self._allocate()
                self._bind(self._context)
                self._prepare()
        except DeviceLostError:
            raise
        except EngineError as error:
            raise type(error)(
                f"{self.engine.title} rejects {self.workload.name}: {error}"
            ) from error

    def _engine_of(self, graph: bytes) -> trt.ICudaEngine:
        return self.engine.built(self.workload, graph, self.build)

    def _allocate(self) -> None:
        """One buffer per tensor at the engine's edge; shapes are static."""
        tensors = self._cuda_engine
        mode = self.engine.module.TensorIOMode
        self._buffers: dict[str, DeviceBuffer] = {}
        self._hosts: dict[str, np.ndarray] = {}
        self._output_names: list[str] = []
        for index in range(tensors.num_io_tensors):
            name = tensors.get_tensor_name(index)
            dtype = np.dtype(self.engine.module.nptype(tensors.get_tensor_dtype(name)))
            host = np.zeros(tuple(tensors.get_tensor_shape(name)), dtype)
            self._hosts[name] = host
            self._buffers[name] = self._memory.allocate(host.nbytes)
            self._memory.clear(self._buffers[name])
            if tensors.get_tensor_mode(name) == mode.OUTPUT:
                self._output_names.append(name)
        self._memory.synchronize()

    def _bind(self, context: trt.IExecutionContext) -> None:
        for name, buffer in self._buffers.items():
            if not context.set_tensor_address(name, buffer.address):
                raise EngineError(f"tensor {name!r} cannot be bound")

    def _prepare(self) -> None:
        """Run a few times, which also allocates what is lazy, then capture if asked for."""
        for _ in range(_WARMUP_RUNS):
            self._enqueue()
        self._memory.synchronize()
        choice = self.engine.options["cuda_graph"]
        self._replay, self.launch = captured(choice, self._capture, self._run_once)

    def _capture(self) -> CapturedGraph:
        """One inference as a CUDA graph that was replayed once."""
        context: Any = self._context
        is_capturable = getattr(context, "is_stream_capturable", None)  # TensorRT-RTX from 1.2
        if is_capturable is not None and not is_capturable(self._memory.stream):
            raise EngineError(f"{self.engine.title} says that it allocates memory while it runs")
        graph = CapturedGraph(self._memory.stream, self._enqueue)
        try:
            graph.launch()
            self._memory.synchronize()
        except BaseException:
            graph.close()
            raise
        return graph

    def _run_once(self) -> None:
        self._enqueue()
        self._memory.synchronize()

    def _enqueue(self) -> None:
        """One inference on the stream, through the context."""
        if not self._context.execute_async_v3(self._memory.stream):
            said = self.engine.logger.said()
            raise engine_error(f"{self.workload.name} could not be enqueued: {said}")

    def _launch(self) -> None:
        if self._replay is not None:
            self._replay.launch()
        else:
            self._enqueue()

    def _set_inputs(self, arrays: list[np.ndarray]) -> None:
        with self._memory.current():
            for name, array in zip(self.workload.input_names, arrays, strict=True):
                if name not in self._hosts:
                    continue  # an input that no output depends on is not in the engine
                host = self._hosts[name]
                np.copyto(host, array, casting="same_kind")
                self._memory.upload(self._buffers[name], host)
            self._memory.synchronize()

    def _run(self) -> None:
        with self._memory.current():
            self._launch()
            self._memory.synchronize()

    def _outputs(self) -> list[np.ndarray]:
        with self._memory.current():
            for name in self._output_names:
                self._memory.download(self._buffers[name], self._hosts[name])
        hosts = [self._hosts[name] for name in self._output_names]
        return [host.astype(np.float32 if host.dtype.kind == "f" else host.dtype) for host in hosts]

    def _sample_ns(self, count: int, runs: int) -> np.ndarray:
        with self._memory.current():
            timed = self.engine.clock.time(self._launch, count, runs)
        self._host_shares.append(timed.host_share)
        return timed.durations_ns

    def _layers(self, runs: int) -> tuple[LayerTime, ...]:
        """From a context of its own, so that this one keeps running without a profiler."""
        recorder = recorder_of(self.engine.module)
        with self._memory.current():
            context, scratch = self.engine.context_of(self._cuda_engine, self.build)
            self._bind(context)
            context.profiler = recorder
            for _ in range(_WARMUP_RUNS + runs):
                recorder.start()
                if not context.execute_async_v3(self._memory.stream):
                    raise EngineError("the profiled run failed")
                self._memory.synchronize()
            inspector: trt.EngineInspector = self._cuda_engine.create_engine_inspector()
            described = inspector.get_engine_information(
                self.engine.module.LayerInformationFormat.JSON
            )
            del inspector, context, scratch  # frees memory of the GPU that is current here
        return layer_times(described, recorder.runs[_WARMUP_RUNS:])

    def _close(self) -> None:
        """Free context, engine, graph and buffers in that order; the GPU may be gone by now."""
        try:
            with self._memory.current():
                self._memory.synchronize()
                if self._replay is not None:
                    self._replay.close()
                del self._context, self._scratch, self._cuda_engine
                self._buffers.clear()
        except Exception as error:
            # What is lost with the GPU needs no freeing, and closing must not hide the first error.
            if not isinstance(engine_error(str(error)), DeviceLostError):
                raise


class PlanSession(TensorRtSession):
    """A session of a serialised engine, a plan as it lies in a file, in place of an ONNX model."""

    def _engine_of(self, graph: bytes) -> trt.ICudaEngine:
        return self.engine.deserialized(graph)
