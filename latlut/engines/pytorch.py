"""PyTorch on the CPU or a CUDA GPU: eager, replayed from a CUDA graph, or compiled by inductor.

On a GPU runs are timed by CUDA events on the current stream; on a CPU by the host's monotonic clock
with a fixed number of threads. A precision is that of weights, inputs and every operator alike;
outputs are converted to float32 outside the timed region.
"""

from __future__ import annotations

import copy
import os
import shutil
from importlib.util import find_spec
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import nn

from latlut.engines.base import (
    Availability,
    Device,
    Engine,
    EngineOption,
    LayerTime,
    Session,
    cpu_device,
)
from latlut.engines.cuda.clock import GpuClock
from latlut.engines.cuda.devices import cuda_devices, driver_uuids, is_called
from latlut.engines.cuda.graphs import CUDA_GRAPH, captured
from latlut.engines.cuda.timeline import TorchTimeline
from latlut.engines.resolution import EVENT_TICK_S, EXACT, Resolution
from latlut.errors import EngineError
from latlut.machine.gpus import driver_of
from latlut.machine.targets import is_part_of_gpu
from latlut.operators.onnx_export import tensors_of_output

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_WARMUP_RUNS = 3


class TorchSession(Session):
    """A module on its device in evaluation mode, called on fixed input tensors."""

    def _open(self, module: nn.Module | None, graph: bytes | None) -> None:
        options = self.engine.options
        torch.set_num_threads(self.engine.threads)
        # Without it TF32 would be another precision than the table says.
        torch.backends.cuda.matmul.allow_tf32 = options["tf32"] == "on"
        torch.backends.cudnn.allow_tf32 = options["tf32"] == "on"
        torch.backends.cudnn.benchmark = True  # shapes are fixed: the search is made once, unseen
        self._device = torch.device(self.engine.device.name)
        self._dtype = _DTYPES[self.engine.precision]
        self._format = (
            torch.channels_last
            if options["memory_format"] == "channels_last"
            else torch.contiguous_format
        )
        built = self.workload.build() if module is None else copy.deepcopy(module)
        self._module = built.to(self._device, self._dtype).eval()
        nn.utils.convert_conv2d_weight_memory_format(self._module, self._format)
        self._call: Any = self._module
        if options["compile"] == "inductor":
            self._call = _compiled(self._module)
        self._graph: Any = None
        self._inputs: list[torch.Tensor] = []
        self._result: Any = None

    def _set_inputs(self, arrays: list[np.ndarray]) -> None:
        tensors = [
            torch.from_numpy(array).to(
                self._device, self._dtype, copy=True, memory_format=self._format
            )
            for array in arrays
        ]
        if self._inputs:  # a captured graph reads from the addresses it was captured with
            for mine, tensor in zip(self._inputs, tensors, strict=True):
                mine.copy_(tensor)
            return
        self._inputs = tensors
        self._prepare()

    def _prepare(self) -> None:
        """Compile and capture, where the options ask for it: before anything is timed."""
        options = self.engine.options
        if options["compile"] == "inductor":
            self._run()
        if self._device.type == "cuda":
            with torch.cuda.device(self._device):
                self._clock = GpuClock(TorchTimeline(torch.cuda.current_stream()))
                self._graph, self.launch = captured(options["cuda_graph"], self._capture, self._run)

    def _capture(self) -> torch.cuda.CUDAGraph:
        """One run as a CUDA graph that was replayed once, after warm-up on a side stream.

        The stream is this session's own: a failed capture must not reach the next session's.
        Source: PyTorch, "CUDA semantics", section CUDA Graphs.
        """
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARMUP_RUNS):
                self._launch()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            self._launch()
        graph.replay()
        torch.cuda.synchronize()
        return graph

    def _launch(self) -> None:
        if self._graph is not None:
            self._graph.replay()
            return
        with torch.inference_mode():
            self._result = self._call(*self._inputs)

    def _run(self) -> None:
        if self._device.type != "cuda":
            self._launch()
            return
        with torch.cuda.device(self._device):
            self._launch()
            torch.cuda.synchronize()

    def _sample_ns(self, count: int, runs: int) -> np.ndarray:
        if self._device.type != "cuda":
            return super()._sample_ns(count, runs)
        with torch.cuda.device(self._device):
            timed = self._clock.time(self._launch, count, runs)
        self._host_shares.append(timed.host_share)
        return timed.durations_ns

    def _outputs(self) -> list[np.ndarray]:
        if self._result is None:
            raise EngineError(f"{self.workload.name}: run() comes before outputs()")
        found = tensors_of_output(self._result)
        # NumPy has no bfloat16
        return [
            (item.float() if item.is_floating_point() else item).cpu().numpy() for item in found
        ]

    def _layers(self, runs: int) -> tuple[LayerTime, ...]:
        from latlut.engines.pytorch_layers import module_layers

        if self.engine.options["compile"] != "off":
            raise EngineError(
                "PyTorch has no per-layer view of a compiled module: "
                "leave out --engine-option compile=inductor"
            )
        return module_layers(self._module, self._inputs, runs)

    def _close(self) -> None:
        del self._graph, self._call, self._module, self._inputs, self._result


class TorchEngine(Engine):
    """PyTorch."""

    name = "pytorch"
    title = "PyTorch"
    precisions = tuple(_DTYPES)
    device_kinds = ("cpu", "cuda")
    reads_onnx = False
    session_type = TorchSession
    option_choices = {
        "memory_format": EngineOption(
            ("contiguous", "channels_last"), "layout of weights and maps: NCHW or NHWC"
        ),
        "cuda_graph": CUDA_GRAPH,
        "compile": EngineOption(
            ("off", "inductor"), "torch.compile; needs a C++ compiler (CPU) or Triton (GPU)"
        ),
        "tf32": EngineOption(("off", "on"), "TF32 arithmetic for fp32 (GPU only)"),
    }

    @classmethod
    def availability(cls) -> Availability:
        return Availability(True, torch.__version__)

    @classmethod
    def device_names(cls) -> tuple[str, ...]:
        """The CPU and every GPU that this build of PyTorch reaches."""
        return ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())))

    def facts(self) -> dict[str, str]:
        """The clock, and on a GPU how cuDNN chooses its algorithms."""
        if self.device.name == "cpu":
            return super().facts()
        return {
            "clock": "CUDA events",
            "cudnn": f"{torch.backends.cudnn.version()}, benchmark on",
        }

    @property
    def resolution(self) -> Resolution:
        """That of the host's clock on a CPU, of CUDA's events on a GPU."""
        return EXACT if self.device.name == "cpu" else Resolution(EVENT_TICK_S)

    def _find_device(self, name: str) -> Device:
        if name == "cpu":
            self._check_on_cpu()
            return cpu_device(name, self.title)
        if not torch.cuda.is_available():
            raise EngineError(
                f"PyTorch has no {name!r} here: this build is {torch.__version__}, "
                f"CUDA {torch.version.cuda or 'not included'}; CPU runs with --cpu\n"
                "install the CUDA build of PyTorch that fits the driver (nvidia-smi shows its "
                "CUDA version), with the command from PyTorch's own installation page"
            )
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            uuid, is_integrated = f"GPU-{properties.uuid}", bool(properties.is_integrated)
            if is_part_of_gpu(properties.name):  # of a MIG instance, only the driver says which
                uuid = next((d.uuid for d in cuda_devices() if d.index == index), uuid)
            if is_called(name, f"cuda:{index}", uuid, is_integrated):
                if self.options["compile"] == "inductor" and find_spec("triton") is None:
                    raise EngineError("compile=inductor needs Triton on a GPU: pip install triton")
                known = driver_uuids(uuid, is_integrated)
                driver = driver_of(*known) or f"CUDA {torch.version.cuda}"
                model = torch.cuda.get_device_name(index)
                return Device(f"cuda:{index}", model, driver, uuid)
        last = torch.cuda.device_count() - 1
        raise EngineError(f"PyTorch has no device {name!r}; it has cuda:0 to cuda:{last}")

    def _check_on_cpu(self) -> None:
        """Refuse what a CPU does not have, rather than write it into an identity."""
        for option in ("cuda_graph", "tf32"):
            if (value := self.options[option]) != "off":
                raise EngineError(f"{option}={value} is for GPUs: on the CPU leave it out")
        if self.options["compile"] == "inductor" and not _cpp_compiler():
            raise EngineError(
                "compile=inductor needs a C++ compiler on the CPU and none is on the PATH: "
                "apt install g++, or name one in the environment variable CXX"
            )
        if self.precision != "fp32":
            dtype = _DTYPES[self.precision]
            try:  # which types have a convolution on the CPU depends on the build
                with torch.inference_mode():
                    nn.Conv2d(4, 4, 3).to(dtype)(torch.zeros(1, 4, 8, 8, dtype=dtype))
            except RuntimeError as error:
                raise EngineError(
                    f"PyTorch {torch.__version__} has no {self.precision} convolution on this "
                    f"CPU: {error}"
                ) from error


def _compiled(module: nn.Module) -> Any:
    """The module compiled by inductor, apart from every other compiled module of the process.

    Dynamo counts compiled versions per code object, and after 8 of them it runs eagerly with no
    more than a warning. Operators of one kind share their forward(), so each module is called
    from a function with a code object of its own.
    """

    def call(*inputs: torch.Tensor) -> Any:
        return module(*inputs)

    own = FunctionType(call.__code__.replace(), call.__globals__, closure=call.__closure__)
    return torch.compile(own, backend="inductor", fullgraph=True, dynamic=False)


def _cpp_compiler() -> str | None:
    """The C++ compiler that inductor would find, None without one."""
    named = [os.environ.get("CXX"), "g++", "clang++"]
    return next((path for name in named if name and (path := shutil.which(name))), None)
