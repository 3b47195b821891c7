"""INT8 calibration of TensorRT 8.6, whose networks carry no types of their own.

Later versions read the ranges from quantise nodes in the graph (``engines.precision``).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from latlut.engines.cuda.memory import DeviceMemory


def calibrator_of(module: ModuleType, memory: DeviceMemory, samples: list[list[np.ndarray]]) -> Any:
    """An INT8 calibrator over sets of inputs, for the weakly typed networks of TensorRT 8.6.

    Takes the extremes that an activation has on the samples, as ``engines.precision.quantized``.

    Args:
        module: a ``tensorrt`` that has calibrators.
        memory: the GPU's, and current.
        samples: sets of float32 inputs ``in0``, ``in1``, ...

    Source: TensorRT 8.6 developer guide, "Calibration Using Python".
    """

    class Calibrator(module.IInt8MinMaxCalibrator):  # type: ignore[name-defined]
        def __init__(self) -> None:
            module.IInt8MinMaxCalibrator.__init__(self)
            self.waiting = list(samples)
            self.buffers = {
                f"in{index}": memory.allocate(array.nbytes)
                for index, array in enumerate(samples[0])
            }

        def get_batch_size(self) -> int:
            return int(samples[0][0].shape[0])

        def get_batch(self, names: list[str]) -> list[int] | None:
            if not self.waiting:
                return None
            for index, array in enumerate(self.waiting.pop(0)):
                memory.upload(self.buffers[f"in{index}"], array)
            memory.synchronize()
            return [self.buffers[name].address for name in names]

        def read_calibration_cache(self) -> None:
            return None

        def write_calibration_cache(self, cache: bytes) -> None:
            """Graphs differ from op spec to op spec: there is nothing to keep."""

    return Calibrator()
