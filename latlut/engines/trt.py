"""TensorRT's seat: known to ``doctor`` and to ``--engine``, not implemented in this version.

It says what is missing here and how to get it; asking for it is refused, never replaced by
another engine.
"""

from __future__ import annotations

import importlib.metadata
from importlib.util import find_spec

from latlut.engines.base import Availability, Device, Engine
from latlut.errors import EngineError


class TensorRtEngine(Engine):
    """TensorRT on an NVIDIA GPU."""

    name = "tensorrt"
    title = "TensorRT"
    precisions = ("fp32", "fp16", "int8")

    @classmethod
    def availability(cls) -> Availability:
        missing = "latlut does not drive TensorRT yet"
        if find_spec("tensorrt") is None:
            return Availability(
                False,
                None,
                f"{missing}; nor is the package tensorrt installed",
                "choose another engine: --engine pytorch runs on CUDA GPUs, "
                "--engine onnxruntime on the CPU",
            )
        version = importlib.metadata.version("tensorrt")
        return Availability(False, version, missing, "choose another engine: --engine pytorch")

    def _find_device(self, name: str) -> Device:
        raise EngineError("TensorRT cannot run here")
