"""PyTorch eager, on the CPU or a CUDA GPU.

On a GPU runs are timed by CUDA events on the current stream, outside of which nothing waits for
the host; on a CPU by the host's monotonic clock with a fixed number of threads.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from latlut.engines.base import Availability, Device, Engine, Session, cpu_device
from latlut.errors import EngineError
from latlut.gpus import detect_gpus


class TorchSession(Session):
    """A module on its device in evaluation mode, called on fixed input tensors."""

    def _open(self, module: nn.Module | None, graph: bytes | None) -> None:
        torch.set_num_threads(self.engine.threads)
        # TF32 would be another precision than the table says.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        self._device = torch.device(self.engine.device.name)
        built = self.workload.build() if module is None else copy.deepcopy(module)
        self._module = built.to(self._device).eval()
        self._result: torch.Tensor | None = None

    def _set_inputs(self, arrays: list[np.ndarray]) -> None:
        self._inputs = [torch.from_numpy(array).to(self._device) for array in arrays]

    def _run(self) -> None:
        with torch.inference_mode():
            self._result = self._module(*self._inputs)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _sample_ns(self, count: int) -> np.ndarray:
        if self._device.type != "cuda":
            return super()._sample_ns(count)
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        with torch.inference_mode():
            events[0].record()
            for event in events[1:]:
                self._result = self._module(*self._inputs)
                event.record()
        torch.cuda.synchronize(self._device)
        spans_ms = [a.elapsed_time(b) for a, b in zip(events, events[1:], strict=False)]
        return np.asarray([round(span * 1e6) for span in spans_ms], dtype=np.int64)

    def _outputs(self) -> list[np.ndarray]:
        if self._result is None:
            raise EngineError(f"{self.workload.name}: run() comes before outputs()")
        return [self._result.float().cpu().numpy()]

    def _close(self) -> None:
        del self._module, self._inputs, self._result


class TorchEngine(Engine):
    """PyTorch eager mode."""

    name = "pytorch"
    title = "PyTorch"
    reads_onnx = False
    session_type = TorchSession

    @classmethod
    def availability(cls) -> Availability:
        return Availability(True, torch.__version__)

    def _find_device(self, name: str) -> Device:
        if name == "cpu":
            return cpu_device(name, self.title)
        if not torch.cuda.is_available():
            raise EngineError(
                f"PyTorch has no {name!r} here: this build is {torch.__version__}, "
                f"CUDA {torch.version.cuda or 'not included'}; CPU runs with --cpu"
            )
        for index in range(torch.cuda.device_count()):
            uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
            if name in (f"cuda:{index}", uuid):
                found = [gpu for gpu in detect_gpus() if gpu.uuid == uuid]
                driver = found[0].driver if found else f"CUDA {torch.version.cuda}"
                model = torch.cuda.get_device_name(index)
                return Device(f"cuda:{index}", model, driver, uuid)
        last = torch.cuda.device_count() - 1
        raise EngineError(f"PyTorch has no device {name!r}; it has cuda:0 to cuda:{last}")
