"""ONNX Runtime on the CPU, the embedded default engine, and on a CUDA GPU.

Inputs and outputs are bound once (I/O binding), so a run allocates nothing on the Python side
and copies nothing. All graph optimisations are on; threads are explicit. On a GPU no node may run
anywhere else: a graph that ONNX Runtime would split between GPU and CPU is rejected.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from latlut.engines.base import (
    Availability,
    Device,
    Engine,
    LayerTime,
    Session,
    cpu_device,
)
from latlut.engines.cuda import devices as cuda
from latlut.engines.cuda.clock import GpuClock
from latlut.engines.cuda.graphs import CUDA_GRAPH, REPLAYED, captured
from latlut.engines.cuda.timeline import TorchTimeline
from latlut.engines.precision import half_precision
from latlut.engines.resolution import EVENT_TICK_S, EXACT, Resolution
from latlut.errors import EngineError
from latlut.machine.provenance import installed_version
from latlut.operators.onnx_weights import runtime_session

if TYPE_CHECKING:
    from torch import nn

_CUDA = "CUDAExecutionProvider"
#: How long threads wait for more work before they sleep, microseconds.
_SPIN_US = "1000"
#: What an output can be: ONNX Runtime's words for types -> numpy's.
_OUTPUT_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    **{
        f"tensor({name})": np.dtype(name).type
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
}


class OnnxRuntimeSession(Session):
    """One ONNX Runtime inference session with bound buffers."""

    def _open(self, module: nn.Module | None, graph: bytes | None) -> None:
        self._graph = self._in_precision(graph or b"")
        self._stream: Any = None
        self._run_options: Any = None
        kind, _, number = self.engine.device.name.partition(":")
        self._place = (kind, int(number or 0))
        self._inputs: list[Any] = []
        self._output_values: list[Any] = []
        if kind == "cuda":
            choice = self.engine.options["cuda_graph"]
            _, self.launch = captured(choice, self._open_for_capture, self._open_plain)
            if choice == "off":
                self._open_plain()
        else:
            self._take(
                runtime_session(
                    self._graph,
                    self.workload.weights_folder,
                    self._session_options(),
                    ["CPUExecutionProvider"],
                )
            )

    def _take(self, session: Any) -> None:
        """Use an ONNX Runtime session, with buffers to be bound."""
        self._session: Any = session
        self._binding = session.io_binding()
        self._are_outputs_open = not all(
            isinstance(side, int) for meta in session.get_outputs() for side in meta.shape
        )

    def _open_plain(self) -> None:
        self._take(self._open_on_gpu(is_captured=False))

    def _open_for_capture(self) -> None:
        """A session that captures in its first runs; they follow when inputs are there."""
        self._take(self._open_on_gpu(is_captured=True))
        if self._are_outputs_open:  # a graph would go on writing into the buffers of its capture
            raise EngineError("the sizes of its outputs depend on its inputs")

    def _in_precision(self, graph: bytes) -> bytes:
        return half_precision(graph) if self.engine.precision == "fp16" else graph

    def _session_options(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.engine.threads
        options.inter_op_num_threads = 1
        # Threads of a session that has just run go on spinning, by default for about 10 ms, and
        # take the cores from the session that is timed next. Within a run nothing changes.
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        return options

    def _open_on_gpu(self, *, is_captured: bool) -> Any:
        """A session of which every node runs on the GPU, on a stream of its own.

        Source: ONNX Runtime, "CUDA Execution Provider", and the keys of its session and run
        options.
        """
        import onnxruntime

        options = self._session_options()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        provider = {
            "device_id": str(self._place[1]),
            "use_tf32": "0",
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "enable_cuda_graph": "1" if is_captured else "0",
        }
        if _torch_has_cuda():
            import torch

            # A stream of its own: ONNX Runtime takes CUDA's default stream, 0, for "none given".
            self._stream = torch.cuda.Stream(device=self._place[1])
            self._clock = GpuClock(TorchTimeline(self._stream))
            provider["user_compute_stream"] = str(self._stream.cuda_stream)
            self._run_options = onnxruntime.RunOptions()
            self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        session = runtime_session(
            self._graph, self.workload.weights_folder, options, [(_CUDA, provider)]
        )
        session.disable_fallback()
        if session.get_providers()[0] != _CUDA:
            raise EngineError(
                "ONNX Runtime could not start its CUDA execution provider and took "
                f"{session.get_providers()[0]}: its CUDA and cuDNN libraries must be found, "
                "pip install 'onnxruntime-gpu[cuda,cudnn]'"
            )
        return session

    def _set_inputs(self, arrays: list[np.ndarray]) -> None:
        import onnxruntime

        if self.engine.precision == "fp16":
            arrays = [a.astype(np.float16) if a.dtype == np.float32 else a for a in arrays]
        if self._place[0] == "cuda" and self._inputs:
            # A captured CUDA graph reads from the addresses that it was captured with.
            for value, array in zip(self._inputs, arrays, strict=True):
                value.update_inplace(array)
            if self._are_outputs_open:
                self._output_values = self._bound_outputs()
            self._wait_for_copies()
            return
        self._inputs = [
            onnxruntime.OrtValue.ortvalue_from_numpy(array, *self._place) for array in arrays
        ]
        self._bind()
        if self.launch == REPLAYED:
            choice = self.engine.options["cuda_graph"]
            _, self.launch = captured(choice, self._run_captured, self._bind_anew)

    def _bind(self) -> None:
        """Give the session its inputs, and a buffer per output."""
        for meta, value in zip(self._session.get_inputs(), self._inputs, strict=True):
            self._binding.bind_ortvalue_input(meta.name, value)
        if not self._output_values or self._are_outputs_open:
            self._output_values = self._bound_outputs()
        self._wait_for_copies()

    def _run_captured(self) -> None:
        """The run that captures, and one replay."""
        for _ in range(2):
            self._run()

    def _bind_anew(self) -> None:
        """Without a graph after all: a fresh session and stream, and a run that proves them."""
        self._output_values = []
        self._open_plain()
        self._bind()
        self._run()

    def _wait_for_copies(self) -> None:
        if self._stream is not None:
            import torch

            torch.cuda.synchronize(self._place[1])  # the copies were made on another stream

    def _bound_outputs(self) -> list[Any]:
        """A buffer per output.

        A shape that the graph leaves open is found by a run, for each set of inputs anew: it may
        depend on their values.
        """
        import onnxruntime

        metas = self._session.get_outputs()
        shapes = [meta.shape for meta in metas]
        if self._are_outputs_open:
            for meta in metas:
                self._binding.bind_output(meta.name, self._place[0], self._place[1])
            self._session.run_with_iobinding(self._binding, self._run_options)
            shapes = [value.shape() for value in self._binding.get_outputs()]
        values = []
        for meta, shape in zip(metas, shapes, strict=True):
            dtype = _OUTPUT_TYPES.get(meta.type)
            if dtype is None:
                raise EngineError(f"the output {meta.name!r} is a {meta.type}, which is no number")
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, *self._place)
            self._binding.bind_ortvalue_output(meta.name, value)
            values.append(value)
        return values

    def _run(self) -> None:
        self._session.run_with_iobinding(self._binding, self._run_options)
        if self._stream is not None:
            self._stream.synchronize()

    def _sample_ns(self, count: int, runs: int) -> np.ndarray:
        if self._stream is None:
            # On a GPU too a run returns only when its stream is done, so the host's clock is right.
            return super()._sample_ns(count, runs)
        import torch

        run = partial(self._session.run_with_iobinding, self._binding, self._run_options)
        with torch.cuda.device(self._place[1]):
            timed = self._clock.time(run, count, runs)
        self._host_shares.append(timed.host_share)
        return timed.durations_ns

    def _outputs(self) -> list[np.ndarray]:
        return [value.numpy() for value in self._output_values]

    def _layers(self, runs: int) -> tuple[LayerTime, ...]:
        from latlut.engines.onnxruntime_layers import graph_layers

        if self._place[0] == "cuda":
            raise EngineError(
                "ONNX Runtime has no per-layer view on a GPU: its packages profile only the "
                "host's side of a launch there"
            )
        arrays = [value.numpy() for value in self._inputs]
        folder = self.workload.weights_folder
        return graph_layers(self._graph, self._session_options(), arrays, runs, folder)

    def _close(self) -> None:
        del self._binding, self._session, self._inputs, self._output_values, self._stream


class OnnxRuntimeEngine(Engine):
    """ONNX Runtime, CPU and CUDA execution providers."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    precisions = ("fp32", "fp16")
    device_kinds = ("cpu", "cuda")
    session_type = OnnxRuntimeSession
    option_choices = {"cuda_graph": CUDA_GRAPH}

    @classmethod
    def availability(cls) -> Availability:
        if find_spec("onnxruntime") is None:
            return Availability(
                False, None, "the package onnxruntime is not installed", "pip install onnxruntime"
            )
        return Availability(True, installed_version("onnxruntime", "onnxruntime-gpu") or "unknown")

    @classmethod
    def device_names(cls) -> tuple[str, ...]:
        """The CPU, and the GPUs where this build of ONNX Runtime has its CUDA provider."""
        import onnxruntime

        if _CUDA not in onnxruntime.get_available_providers():
            return ("cpu",)
        return ("cpu", *cuda.device_names())

    def facts(self) -> dict[str, str]:
        """The clock."""
        if self.device.name == "cpu":
            return super().facts()
        if not _torch_has_cuda():
            return {"clock": "host clock around each run, which waits for its stream"}
        return {"clock": "CUDA events of PyTorch"}

    @property
    def resolution(self) -> Resolution:
        """That of the host's clock, or of CUDA's events where PyTorch makes them."""
        has_events = self.device.name != "cpu" and _torch_has_cuda()
        return Resolution(EVENT_TICK_S) if has_events else EXACT

    def _find_device(self, name: str) -> Device:
        if name == "cpu":
            if (value := self.options["cuda_graph"]) != "off":
                raise EngineError(f"cuda_graph={value} is for GPUs: on the CPU leave it out")
            if self.precision == "fp16":
                raise EngineError(
                    "ONNX Runtime has no fp16 on the CPU: it would convert to fp32 and back "
                    "around each operator, and the table would not hold what it says"
                )
            return cpu_device(name, self.title)
        import onnxruntime

        if _CUDA not in onnxruntime.get_available_providers():
            raise EngineError(
                f"ONNX Runtime has no {name!r} here: this build has no CUDA execution provider\n"
                "pip uninstall onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"
            )
        device = cuda.find_device(name)
        if device is None:
            known = ", ".join(cuda.device_names()) or "none"
            raise EngineError(f"ONNX Runtime has no GPU {name!r}; the CUDA driver shows: {known}")
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # CUDA and cuDNN from the packages that hold them
        return device


def _torch_has_cuda() -> bool:
    """Whether there is a PyTorch that can make the streams and events that time runs on a GPU."""
    if find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())
