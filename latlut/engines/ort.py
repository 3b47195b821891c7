"""ONNX Runtime on the CPU, the embedded default engine.

Inputs and outputs are bound once (I/O binding), so a run allocates nothing on the Python side
and copies nothing. All graph optimisations are on; threads are explicit.
"""

from __future__ import annotations

import importlib.metadata
from importlib.util import find_spec
from typing import Any

import numpy as np
from torch import nn

from latlut.engines.base import Availability, Device, Engine, Session, cpu_device


class OnnxRuntimeSession(Session):
    """One ONNX Runtime inference session with bound buffers."""

    def _open(self, module: nn.Module | None, graph: bytes | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.engine.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
        self._binding = self._session.io_binding()
        self._output_value: Any = None

    def _set_inputs(self, arrays: list[np.ndarray]) -> None:
        import onnxruntime

        self._inputs = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays]
        for meta, value in zip(self._session.get_inputs(), self._inputs, strict=True):
            self._binding.bind_ortvalue_input(meta.name, value)
        if self._output_value is None:
            meta = self._session.get_outputs()[0]
            self._output_value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                meta.shape, np.float32
            )
            self._binding.bind_ortvalue_output(meta.name, self._output_value)

    def _run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def _outputs(self) -> list[np.ndarray]:
        return [self._output_value.numpy()]

    def _close(self) -> None:
        del self._binding, self._session, self._inputs, self._output_value


class OnnxRuntimeEngine(Engine):
    """ONNX Runtime, CPU execution provider."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    session_type = OnnxRuntimeSession

    @classmethod
    def availability(cls) -> Availability:
        if find_spec("onnxruntime") is None:
            return Availability(
                False, None, "the package onnxruntime is not installed", "pip install onnxruntime"
            )
        for package in ("onnxruntime", "onnxruntime-gpu"):
            try:
                return Availability(True, importlib.metadata.version(package))
            except importlib.metadata.PackageNotFoundError:
                continue
        return Availability(True, "unknown")

    def _find_device(self, name: str) -> Device:
        return cpu_device(name, self.title)
