"""OpenVINO on the CPU.

One stream, explicit threads, float32 arithmetic (the latency hint alone may choose bfloat16).
Input and output tensors are set once; a run is a synchronous infer on them.

Convolutions compute with channels last. A piece of a network takes its feature maps so: no network
pays for conversions between its layers, which can take longer than the piece itself.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from latlut.engines.base import Availability, Device, Engine, LayerTime, Session, cpu_device
from latlut.operators.ir_files import IrWorkload
from latlut.operators.onnx_weights import model_file

if TYPE_CHECKING:
    from torch import nn


class OpenVinoSession(Session):
    """One OpenVINO infer request with tensors set."""

    def _open(self, module: nn.Module | None, graph: bytes | None) -> None:
        import openvino

        self._graph = graph
        self._compiled: Any = self._compile({})
        self._request: Any = self._compiled.create_infer_request()
        self._tensor_type = openvino.Tensor
        # The Python wrapper's infer() converts inputs and outputs at each call; its base does not.
        self._infer: Any = super(type(self._request), self._request).infer  # type: ignore[misc]

    def _compile(self, more: dict[str, Any]) -> Any:
        core, workload = _core(), self.workload
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self.engine.threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,  # the measuring process is pinned as a whole
        }
        if isinstance(workload, IrWorkload):
            model = core.read_model(workload.path)
            model.reshape(dict(enumerate(workload.input_shapes)))
            self._are_last = [False] * len(model.inputs)
            return core.compile_model(model, "CPU", settings | more)
        assert self._graph is not None
        # Read from a file, as users' programs do: a graph read from memory leaves its weights
        # where inference is 2% to 4% slower (measured, docs/results).
        with model_file(self._graph, workload.weights_folder) as path:
            model = core.read_model(path)
            free = {*workload.free_layouts}
            self._are_last = [bool(port.get_names() & free) for port in model.inputs]
            model = _with_channels_last(model, self._are_last)
            return core.compile_model(model, "CPU", settings | more)

    def _set_inputs(self, arrays: list[np.ndarray]) -> None:
        # The tensors share the arrays' memory.
        self._arrays = [
            np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if is_last else array
            for array, is_last in zip(arrays, self._are_last, strict=True)
        ]
        for index, array in enumerate(self._arrays):
            self._request.set_input_tensor(index, self._tensor_type(array, shared_memory=True))

    def _run(self) -> None:
        self._infer({}, share_outputs=True, decode_strings=False)

    def _outputs(self) -> list[np.ndarray]:
        count = len(self._compiled.outputs)
        return [np.array(self._request.get_output_tensor(index).data) for index in range(count)]

    def _layers(self, runs: int) -> tuple[LayerTime, ...]:
        from latlut.engines.openvino_layers import compiled_layers

        return compiled_layers(lambda: self._compile({"PERF_COUNT": True}), self._arrays, runs)

    def _close(self) -> None:
        del self._infer, self._request, self._compiled, self._arrays


class OpenVinoEngine(Engine):
    """OpenVINO, CPU plugin."""

    name = "openvino"
    title = "OpenVINO"
    session_type = OpenVinoSession

    @classmethod
    def availability(cls) -> Availability:
        if find_spec("openvino") is None:
            return Availability(
                False,
                None,
                "the package openvino is not installed",
                "pip install 'latlut[openvino]'  or  pip install openvino",
            )
        return Availability(True, importlib.metadata.version("openvino"))

    def _find_device(self, name: str) -> Device:
        return cpu_device(name, self.title)


def _with_channels_last(model: Any, are_last: Sequence[bool]) -> Any:
    """The model with those of its inputs as (B, H, W, C)."""
    if not any(are_last):
        return model
    from openvino import Layout
    from openvino.preprocess import PrePostProcessor

    changed = PrePostProcessor(model)
    for index, is_last in enumerate(are_last):
        if is_last:
            changed.input(index).model().set_layout(Layout("NCHW"))
            changed.input(index).tensor().set_layout(Layout("NHWC"))
    return changed.build()


_CORE: list[Any] = []


def _core() -> Any:
    """The process's one OpenVINO core: its plugins take about 0.1 s to load."""
    if not _CORE:
        import openvino

        _CORE.append(openvino.Core())
    return _CORE[0]
