"""Building a TensorRT engine from an ONNX graph, without a GPU where the library allows it.

One implementation over a module: ``tensorrt`` from 8.6 to 11, or ``tensorrt_rtx``. What a version
has is looked up, not guessed from its number: strongly typed networks where they exist, precision
flags and a calibrator only where they do not (8.6).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from latlut.engines.device_errors import engine_error
from latlut.engines.precision import node_label, opset_of
from latlut.engines.tensorrt.versions import Release
from latlut.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt

Made = TypeVar("Made")

#: Most of a build's log lines that an error quotes.
_QUOTED_LINES = 4


@dataclass(frozen=True)
class BuildSettings:
    """How an engine is built.

    ``precision`` fp32, fp16 or int8: where networks are strongly typed the graph itself has it,
    elsewhere it sets the builder's flags. ``workspace_mib`` limits the scratch memory of a layer,
    None for all of the GPU's. ``optimization_level`` 0 (fast to build) to 5 (tries most).
    ``is_captured``: runs are to be captured as a CUDA graph, so that TensorRT-RTX must not leave
    memory to be allocated while they run.
    """

    precision: str = "fp32"
    is_tf32_allowed: bool = False
    workspace_mib: int | None = None
    optimization_level: int = 3
    is_captured: bool = False


@dataclass(frozen=True)
class Build:
    """A built engine: its serialised ``plan``, the timing cache after the build, and remarks.

    ``timing_cache`` is None where none was asked for; ``warnings`` are the library's own.
    """

    plan: bytes
    timing_cache: bytes | None = None
    warnings: tuple[str, ...] = ()


def release_of(module: ModuleType) -> Release:
    """The installed release behind a module."""
    return Release(module.__name__, str(module.__version__))


def is_strongly_typed(module: ModuleType) -> bool:
    """Whether precision is the graph's alone: true of TensorRT-RTX and of TensorRT from 10."""
    return hasattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def has_user_allocation(module: ModuleType) -> bool:
    """Whether an engine may be built to need no memory beyond what it is given: TensorRT-RTX."""
    return hasattr(module.BuilderFlag, "REQUIRE_USER_ALLOCATION")


def compute_capabilities(module: ModuleType) -> dict[tuple[int, int], Any]:
    """What can be built for without such a GPU: capability -> the module's value; RTX only."""
    members = getattr(module, "ComputeCapability", None)
    if members is None:
        return {}
    return {
        (int(name[2:-1]), int(name[-1])): value
        for name, value in members.__members__.items()
        if re.fullmatch(r"SM\d+", name)
    }


def log_recorder(module: ModuleType) -> Any:
    """A logger that keeps what the library says, ``lines`` of (severity, message).

    Severities are TensorRT's: 0 internal error, 1 error, 2 warning, 3 info, 4 verbose.
    """

    class LogRecorder(module.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.lines: list[tuple[int, str]] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(module.ILogger.WARNING):
                self.lines.append((int(severity), message))

        def take(self, severity: int) -> list[str]:
            """Messages of at least that severity, each once; forgets all."""
            found = [message for level, message in self.lines if level <= severity]
            self.lines.clear()
            return list(dict.fromkeys(found))

        def said(self) -> str:
            """The first errors on one line; forgets all."""
            return quoted(self.take(1), "no reason given")

    return LogRecorder()


def quoted(messages: list[str], otherwise: str) -> str:
    """The first few messages on one line each, or ``otherwise`` where there is none."""
    lines = [" ".join(message.split()) for message in messages]
    return "; ".join(lines[:_QUOTED_LINES]) or otherwise


def made(factory: Callable[[Any], Made | None], logger: Any, what: str) -> Made:
    """What one of the library's factories makes.

    Raises:
        EngineError: it makes nothing. The bindings raise TypeError then ("factory function returned
            nullptr"); the reason is what the library logged, often as a warning.
    """
    logger.lines.clear()
    try:
        found = factory(logger)
    except TypeError as error:
        found, otherwise = None, str(error)
    else:
        otherwise = "no reason given"
    if found is None:
        raise engine_error(f"the library makes no {what}: {quoted(logger.take(2), otherwise)}")
    return found


def parse_graph(
    module: ModuleType, builder: trt.Builder, graph: bytes, logger: Any
) -> trt.INetworkDefinition:
    """The graph as a network definition of ``builder``, explicit batch, strongly typed if it can.

    Raises:
        EngineError: this is no ONNX model, its opset is too new, or the parser rejects nodes; each
            is named with the parser's message.
    """
    release = release_of(module)
    release.check_opset(opset_of(graph))
    flags = module.NetworkDefinitionCreationFlag
    names = ["STRONGLY_TYPED"] if is_strongly_typed(module) else []
    if not names or (release.package, release.numbers[0]) == ("tensorrt", 9):
        names.append("EXPLICIT_BATCH")  # TensorRT 9 wants it beside the other
    mask = sum(1 << int(getattr(flags, name)) for name in names)
    network: trt.INetworkDefinition = builder.create_network(mask)
    parser: trt.OnnxParser = module.OnnxParser(network, logger)
    is_parsed = parser.parse(graph)
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if not is_parsed or errors:
        reasons = [
            f"{node_label(graph, error.node())}: {error.desc()} "
            f"({error.code().name} in {error.func()})"
            for error in errors
        ]
        said = quoted(reasons, logger.said())
        raise EngineError(f"the ONNX parser rejects it: {said}")
    if not network.num_outputs:
        raise EngineError("the ONNX parser finds no outputs in it")
    return network


def build_engine(
    module: ModuleType,
    graph: bytes,
    settings: BuildSettings,
    *,
    compute_capability: tuple[int, int] | None = None,
    timing_cache: bytes | None = None,
    calibrator: Any = None,
) -> Build:
    """A serialised engine for the graph.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        graph: a serialised ONNX model with static shapes; its types are the precision where
            networks are strongly typed.
        settings: see ``BuildSettings``.
        compute_capability: (major, minor) to build for. TensorRT builds for the current GPU and
            ignores it; TensorRT-RTX builds for it whether it is here or not, and for every GPU
            that it knows where it is None.
        timing_cache: measured tactics to start from, empty to start one; None builds without, so
            that every tactic is timed anew and the build is independent of earlier ones.
        calibrator: the module's own INT8 calibrator, where networks are not strongly typed.

    Raises:
        EngineError: the graph is rejected, the GPU is not supported, or no implementation fits
            the limits; quotes the library.
        DeviceLostError: the GPU has gone.
    """
    logger = log_recorder(module)
    builder: trt.Builder = made(module.Builder, logger, "builder")
    network = parse_graph(module, builder, graph, logger)
    config = builder_config(module, builder, settings)
    _choose_gpu(module, config, compute_capability)
    if not is_strongly_typed(module):
        _set_precision(module, network, config, settings.precision, calibrator)
    logger.lines.clear()
    cache = _attach_cache(module, config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise engine_error(_build_failure(logger.said(), settings))
    return Build(
        bytes(plan),
        bytes(cache.serialize()) if cache is not None else None,
        tuple(logger.take(2)),
    )


def builder_config(
    module: ModuleType, builder: trt.Builder, settings: BuildSettings
) -> trt.IBuilderConfig:
    """A configuration with the settings that every version has; precision is not among them."""
    config: trt.IBuilderConfig = builder.create_builder_config()
    if settings.is_tf32_allowed:
        config.set_flag(module.BuilderFlag.TF32)
    else:
        config.clear_flag(module.BuilderFlag.TF32)  # on by default
    config.builder_optimization_level = settings.optimization_level
    # Names of layers and their source nodes are in the plan; what runs is the same.
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    if settings.is_captured and has_user_allocation(module):
        config.set_flag(module.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, settings.workspace_mib << 20)
    return config


def check_capability(module: ModuleType, capability: tuple[int, int]) -> None:
    """Refuse a GPU that the module has no kernels for, where it says which it has.

    Raises:
        EngineError: names those that it builds for.
    """
    known = compute_capabilities(module)
    if known and capability not in known:
        listed = ", ".join(f"{major}.{minor}" for major, minor in sorted(known))
        raise EngineError(
            f"{module.__name__} {module.__version__} builds for compute capability {listed}, "
            f"not for {capability[0]}.{capability[1]}\nchoose --engine tensorrt"
        )


def _choose_gpu(module: ModuleType, config: Any, capability: tuple[int, int] | None) -> None:
    known = compute_capabilities(module)
    if capability is None or not known:
        return
    check_capability(module, capability)
    config.num_compute_capabilities = 1
    config.set_compute_capability(known[capability], 0)


def _set_precision(
    module: ModuleType, network: Any, config: Any, precision: str, calibrator: Any
) -> None:
    """Flags of the weakly typed networks of TensorRT 8.6, where they allow and do not demand."""
    if precision == "fp16":
        config.set_flag(module.BuilderFlag.FP16)
        tensors = [network.get_input(index) for index in range(network.num_inputs)]
        tensors += [network.get_output(index) for index in range(network.num_outputs)]
        for tensor in tensors:
            if tensor.dtype == module.float32:  # a class map stays whole numbers
                tensor.dtype = module.float16
    elif precision == "int8":
        if calibrator is None:
            raise EngineError("int8 with this TensorRT needs a calibrator, and a GPU to run it")
        config.set_flag(module.BuilderFlag.INT8)
        config.int8_calibrator = calibrator


def _attach_cache(
    module: ModuleType, config: trt.IBuilderConfig, content: bytes | None
) -> trt.ITimingCache | None:
    """Give the builder a timing cache, or tell it to keep none."""
    if content is None:
        config.set_flag(module.BuilderFlag.DISABLE_TIMING_CACHE)
        return None
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        # Of another GPU or version, although its file says otherwise.
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _build_failure(said: str, settings: BuildSettings) -> str:
    """The builder's message, with the limit that it may have met."""
    if "workspace" in said.lower() and settings.workspace_mib is not None:
        return (
            f"nothing can be built within workspace_mib={settings.workspace_mib}: {said}\n"
            "allow more, or leave the option out"
        )
    return f"the builder failed: {said}"
