"""Inference engines behind one contract; ``base`` holds it, one file per engine implements it.

This is the one list of engines. It imports none of them, and no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from latlut.errors import UnknownNameError, did_you_mean
from latlut.machine.provenance import Environment, Fact, collect_environment, package

if TYPE_CHECKING:
    from latlut.engines.base import Engine


class _Home(NamedTuple):
    """Where an engine's class is, and the package whose version belongs beside measurements."""

    place: str
    package: Fact | None


#: In order of preference on a CPU. PyTorch, which latlut itself needs, is in every environment.
_ENGINES = {
    "onnxruntime": _Home(
        "latlut.engines.onnxruntime:OnnxRuntimeEngine",
        package("onnxruntime", "ONNX Runtime", "", "-gpu", "-openvino"),
    ),
    "openvino": _Home("latlut.engines.openvino:OpenVinoEngine", package("openvino", "OpenVINO")),
    "pytorch": _Home("latlut.engines.pytorch:TorchEngine", None),
    "tensorrt": _Home(
        "latlut.engines.tensorrt.engine:TensorRtEngine",
        package("tensorrt", "TensorRT", "", "-cu13", "-cu12", "-cu11"),
    ),
    "tensorrt-rtx": _Home(
        "latlut.engines.tensorrt.engine:TensorRtRtxEngine",
        package("tensorrt_rtx", "TensorRT for RTX", "", "-cu13", "-cu12"),
    ),
}

#: Number formats that engines compute in; each engine says which of them it has.
PRECISIONS = ("fp32", "fp16", "bf16", "int8")

#: Engine and kind of device that we have run on hardware, with the contract suite and a sweep.
#: What is not in here is written with care and checked as far as it goes without the hardware.
PROVEN_ON = frozenset({("onnxruntime", "cpu"), ("openvino", "cpu"), ("pytorch", "cpu")})


def engine_names() -> list[str]:
    """Names of all engines, whether they work here or not."""
    return list(_ENGINES)


def engine_packages() -> list[Fact]:
    """The engines' packages, for ``machine.provenance``."""
    return [home.package for home in _ENGINES.values() if home.package is not None]


def engine_module(name: str) -> str:
    """The Python module that an engine's package brings, ``onnxruntime``.

    Raises:
        UnknownNameError: no engine has that name.
    """
    package_of = _home(name).package
    return package_of.name if package_of is not None else "torch"


def run_environment() -> Environment:
    """What this machine is now, the engines' versions included: what is stored with a run."""
    return collect_environment(engine_packages())


def engine_class(name: str) -> type[Engine]:
    """The engine's class.

    Raises:
        UnknownNameError: no engine has that name.
    """
    module, _, attribute = _home(name).place.partition(":")
    found: type[Engine] = getattr(import_module(module), attribute)
    return found


def _home(name: str) -> _Home:
    if name not in _ENGINES:
        raise UnknownNameError(f"unknown engine {name!r}: {did_you_mean(name, engine_names())}")
    return _ENGINES[name]
