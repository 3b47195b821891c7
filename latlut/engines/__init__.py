"""Inference engines behind one contract; ``base`` holds it, one file per engine implements it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from latlut.errors import UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from latlut.engines.base import Engine

#: Engine name -> where its class is; in order of preference on a CPU.
_ENGINES = {
    "onnxruntime": "latlut.engines.onnxruntime:OnnxRuntimeEngine",
    "openvino": "latlut.engines.openvino:OpenVinoEngine",
    "pytorch": "latlut.engines.pytorch:TorchEngine",
    "tensorrt": "latlut.engines.tensorrt.engine:TensorRtEngine",
    "tensorrt-rtx": "latlut.engines.tensorrt.engine:TensorRtRtxEngine",
}

#: Engine and kind of device that we have run on hardware, with the contract suite and a sweep.
#: What is not in here is written with care and checked as far as it goes without the hardware.
PROVEN_ON = frozenset({("onnxruntime", "cpu"), ("openvino", "cpu"), ("pytorch", "cpu")})


def engine_names() -> list[str]:
    """Names of all engines, whether they work here or not."""
    return list(_ENGINES)


def engine_class(name: str) -> type[Engine]:
    """The engine's class.

    Raises:
        UnknownNameError: no engine has that name.
    """
    if name not in _ENGINES:
        raise UnknownNameError(f"unknown engine {name!r}: {did_you_mean(name, engine_names())}")
    module, _, attribute = _ENGINES[name].partition(":")
    found: type[Engine] = getattr(import_module(module), attribute)
    return found
