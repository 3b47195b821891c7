"""The engine contract: what every inference engine must do to be measured.

An engine loads a workload and gives a session. A session keeps its inputs and outputs on the
device, runs the workload, and times runs with the device's own clock; copies happen outside the
timed region. Public methods check, the hooks (leading underscore) do the engine's work:

    _open(module, graph) build the session           _run()           one inference, blocking
    _set_inputs(arrays)  host to device              _outputs()       device to host
    _close()             free it                     _sample_ns(n, r) n readings of r runs
    _layers(n)           the engine's own profile over n runs, where it has one

An engine that reads ONNX gets a serialised graph, any other the PyTorch module.

One behaviour suite, tests/engines/test_engines.py, runs over every engine. No engine ever stands in
for another: one that cannot run here says why and how to get it.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from latlut.engines.device_errors import engine_error
from latlut.engines.parity import worst_difference
from latlut.engines.resolution import EXACT, Resolution
from latlut.errors import EngineError, LatlutError, ParityError, SpecError, reason_of
from latlut.heap import return_freed_memory
from latlut.machine.cpu import cpu_model
from latlut.operators.workloads import Workload

if TYPE_CHECKING:
    from torch import nn

#: Of the inputs on which outputs are compared with the reference.
PARITY_SEED = 1


@dataclass(frozen=True)
class Availability:
    """Whether an engine works here; if not, why and how to get it."""

    is_available: bool
    version: str | None = None
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Device:
    """What an engine runs on: ``name`` such as ``cpu`` or ``cuda:0``, its model and driver.

    ``uuid`` identifies a GPU whatever its number is to whom; the device's lock goes by it.
    """

    name: str
    model: str
    driver: str = ""
    uuid: str = ""


@dataclass(frozen=True)
class EngineOption:
    """A setting of an engine that changes what is timed, and is therefore part of the identity.

    ``choices`` has first what an identity leaves out, which is the default; ``description`` is a
    line for ``latlut doctor``. On a GPU the default is ``on_gpu`` where that is given.
    """

    choices: tuple[str, ...]
    description: str
    on_gpu: str = ""

    def default(self, device: str) -> str:
        """What holds on a device, ``cpu`` or a GPU's name, where nothing is said."""
        return self.choices[0] if device == "cpu" else self.on_gpu or self.choices[0]


@dataclass(frozen=True)
class LayerTime:
    """One layer that an engine executes, as its own profiler times it.

    An engine's layer is rarely an operator's: it fuses several graph nodes into one, and adds
    conversions of memory layouts that no node asked for.
    """

    name: str
    """The engine's name of the layer, unique within one profile."""
    kind: str
    """The engine's word for what it does, ``Convolution`` or ``ReorderInput``."""
    time_ms: float
    """Median over the profiled runs, milliseconds; includes what profiling costs. OpenVINO counts
    means, of which it is the median over three models."""
    source_nodes: tuple[str, ...] = ()
    """Names of the nodes (or else output tensors) of the ONNX graph that it computes, or for an
    engine that takes the module the path of the submodule; empty for a layer that the engine added.
    """
    detail: str = ""
    """What else the engine says of it, such as the kernel or the layout; may be empty."""


class Session(ABC):
    """An engine loaded with one workload, ready to run. A context manager.

    ``build`` numbers independent builds of one graph, for engines that choose among
    implementations while building (``Engine.chooses_tactics``); others build the same each time.
    ``launch`` says how runs get onto a GPU (``engines.cuda.graphs``), None on a CPU.
    """

    launch: str | None = None

    def __init__(self, engine: Engine, workload: Workload, build: int = 0) -> None:
        self.engine = engine
        self.workload = workload
        self.build = build
        self._is_open = False
        self._has_inputs = False
        self._host_shares: list[float] = []

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_inputs(self, arrays: Sequence[np.ndarray]) -> None:
        """Copy the inputs to the device.

        Args:
            arrays: one per input, of the workload's ``input_shapes`` and ``input_types``.

        Raises:
            SpecError: the number, shape or dtype of the arrays does not fit.
        """
        self._check_open()
        expected = self.workload.input_shapes
        received = tuple(array.shape for array in arrays)
        if received != expected:
            raise SpecError(
                f"{self.workload.name}: received inputs {received}, expected {expected}"
            )
        types = self.workload.input_types
        if any(array.dtype != wanted for array, wanted in zip(arrays, types, strict=True)):
            wanted_types = ", ".join(map(str, types))
            raise SpecError(f"{self.workload.name}: inputs must be {wanted_types}")
        with self._engine_errors():
            self._set_inputs([np.require(array, requirements="C") for array in arrays])
        self._has_inputs = True

    def run(self) -> None:
        """One inference; returns when the outputs are ready on the device."""
        self._check_ready()
        with self._engine_errors():
            self._run()

    def sample_ns(self, count: int, runs: int = 1) -> np.ndarray:
        """Durations of runs: (count,) int64, nanoseconds, each the mean of ``runs`` in a row."""
        self._check_ready()
        if count < 1 or runs < 1:
            raise SpecError(f"count and runs must be at least 1, received {count} and {runs}")
        with self._engine_errors():
            return self._sample_ns(count, runs)

    @property
    def host_share(self) -> float | None:
        """What the host takes to enqueue a run over what the run takes on the GPU.

        The median over all that was sampled so far; None where that is not known, as on a CPU.
        """
        return float(np.median(self._host_shares)) if self._host_shares else None

    def outputs(self) -> list[np.ndarray]:
        """The last run's outputs on the host, in the types that the engine gives them."""
        self._check_ready()
        with self._engine_errors():
            return self._outputs()

    def layers(self, runs: int = 20) -> tuple[LayerTime, ...]:
        """What the engine executes for this workload, layer by layer, in order of execution.

        Profiling slows an engine down, so the times are for comparing layers with each other.
        The session itself keeps running without it.

        Args:
            runs: profiled runs, of which each layer's median is taken; a few more warm up.

        Raises:
            EngineError: the engine has no per-layer view, here or with these options.
            SpecError: ``runs`` is not positive.
        """
        self._check_ready()
        if runs < 1:
            raise SpecError(f"runs must be at least 1, received {runs}")
        with self._engine_errors():
            return self._layers(runs)

    def close(self) -> None:
        """Free the session; may be called again."""
        if self._is_open:
            self._is_open = False
            self._close()

    @contextmanager
    def _engine_errors(self) -> Iterator[None]:
        """An engine's own exceptions become EngineError that names the workload."""
        try:
            yield
        except LatlutError:
            raise
        except (Exception, SystemExit) as error:
            title = self.engine.title
            raise engine_error(
                f"{title} failed on {self.workload.name}: {reason_of(error)}"
            ) from error

    def _check_open(self) -> None:
        if not self._is_open:
            raise EngineError(f"{self.workload.name}: the session is closed")

    def _check_ready(self) -> None:
        self._check_open()
        if not self._has_inputs:
            raise EngineError(f"{self.workload.name}: set_inputs() comes before running")

    @abstractmethod
    def _open(self, module: nn.Module | None, graph: bytes | None) -> None: ...

    @abstractmethod
    def _set_inputs(self, arrays: list[np.ndarray]) -> None: ...

    @abstractmethod
    def _run(self) -> None: ...

    @abstractmethod
    def _outputs(self) -> list[np.ndarray]: ...

    @abstractmethod
    def _close(self) -> None: ...

    def _sample_ns(self, count: int, runs: int) -> np.ndarray:
        run, clock = self._run, time.perf_counter_ns
        durations = np.empty(count, dtype=np.int64)
        for index in range(count):
            started = clock()
            for _ in range(runs):
                run()
            durations[index] = (clock() - started) // runs
        return durations

    def _layers(self, runs: int) -> tuple[LayerTime, ...]:
        raise EngineError(f"{self.engine.title} has no per-layer view")


class Engine(ABC):
    """An inference engine with a fixed precision and number of threads.

    Args:
        threads: threads of one inference on a CPU; at least 1. Ignored by GPU engines.
        precision: one of ``precisions``.
        device: ``cpu``, or ``cuda:N`` where the engine has it.
        options: name -> value of those settings in ``option_choices`` that are not to have their
            default, ``{"cuda_graph": "on"}``.

    Raises:
        EngineError: the engine does not work here, or lacks the precision, device or option.
        SpecError: ``threads`` is not positive.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    #: What it can run on in principle, here or elsewhere: "cpu", "cuda" or both.
    device_kinds: ClassVar[tuple[str, ...]] = ("cpu",)
    reads_onnx: ClassVar[bool] = True
    session_type: ClassVar[type[Session]]
    option_choices: ClassVar[Mapping[str, EngineOption]] = {}
    #: Whether two builds of one graph can differ in speed.
    chooses_tactics: ClassVar[bool] = False
    #: Whether two sessions can be open side by side and take turns, as in-context entries need.
    supports_in_context: ClassVar[bool] = True
    #: Whether outputs are compared with the reference before anything is timed.
    is_compared: bool = True
    #: How operators are isolated where nothing else is asked for, one of ``table.identity.MODES``.
    default_mode: ClassVar[str] = "standalone"

    def __init__(
        self,
        threads: int = 1,
        precision: str = "fp32",
        device: str = "cpu",
        options: Mapping[str, str] | None = None,
    ) -> None:
        if threads < 1:
            raise SpecError(f"threads must be at least 1, received {threads}")
        found = self.availability()
        if not found.is_available:
            raise EngineError(f"{self.title} cannot run here: {found.reason}\n{found.remedy}")
        if precision not in self.precisions:
            known = ", ".join(self.precisions)
            raise EngineError(f"{self.title} has no precision {precision!r} here; it has: {known}")
        self.threads = threads
        self.precision = precision
        self.options = self._checked_options(options or {}, device)
        self.device = self._find_device(device)
        self.version = str(found.version)

    def _checked_options(self, options: Mapping[str, str], device: str) -> dict[str, str]:
        """Every option's value, the device's defaults filled in."""
        for name, value in options.items():
            if name not in self.option_choices:
                known = ", ".join(self.option_choices) or "none"
                raise EngineError(f"{self.title} has no option {name!r}; it has: {known}")
            choices = self.option_choices[name].choices
            if value not in choices:
                raise EngineError(
                    f"{self.title}: {name} is one of {', '.join(choices)}, received {value!r}"
                )
        return {
            name: options.get(name, option.default(device))
            for name, option in self.option_choices.items()
        }

    @property
    def options_text(self) -> str:
        """The options that are not at their first choice, ``"cuda_graph=auto"``; part of the
        identity. What is left out means the same whatever an engine's defaults are.
        """
        return ",".join(
            f"{name}={value}"
            for name, value in sorted(self.options.items())
            if value != self.option_choices[name].choices[0]
        )

    @property
    def arithmetic(self) -> str:
        """What bounds it on a target (``Target.peak_flops_per_s``): the precision, or tf32."""
        has_tf32 = self.precision == "fp32" and self.options.get("tf32", "off") == "on"
        return "tf32" if has_tf32 else self.precision

    @classmethod
    @abstractmethod
    def availability(cls) -> Availability:
        """Whether the engine works on this machine."""

    @classmethod
    def device_names(cls) -> tuple[str, ...]:
        """The devices of this machine that the engine can use, ``("cpu", "cuda:0")``.

        Only asked where the engine is available.
        """
        return ("cpu",) if "cpu" in cls.device_kinds else ()

    def facts(self) -> dict[str, str]:
        """What of the engine belongs beside a run's measurements: name -> text.

        ``clock`` says by what runs are timed.
        """
        return {"clock": "host clock around each run"}

    @property
    def resolution(self) -> Resolution:
        """How finely ``Session.sample_ns`` tells time."""
        return EXACT

    def launch_floor_ms(self) -> float | None:
        """What a run that does nothing takes by this engine's clock, in milliseconds.

        Entries near it say more about launching than about the operator. None where the engine
        does not measure it.
        """
        return None

    def keep_caches_beside(self, table: Path) -> None:  # noqa: B027  # most engines have none
        """Keep beside the table those files of the engine that its numbers depend on.

        Args:
            table: path of the table that is measured into; need not exist yet.
        """

    @abstractmethod
    def _find_device(self, name: str) -> Device:
        """The device of that name, or EngineError naming those that are there."""

    def needs_graph(self, workload: Workload) -> bool:
        """Whether it runs the workload from its ONNX model."""
        return self.reads_onnx and workload.only_engine != self.name

    def load(
        self,
        workload: Workload,
        *,
        module: nn.Module | None = None,
        graph: bytes | None = None,
        build: int = 0,
    ) -> Session:
        """A session that runs ``workload`` on its own random inputs.

        Args:
            workload: what to run.
            module: its PyTorch module where it is built already; built on demand otherwise.
            graph: its ONNX model where the engine reads ONNX (``GraphCache.onnx_bytes``);
                exported on demand otherwise.
            build: number of the independent build, where the engine chooses tactics.

        Raises:
            EngineError: the engine rejects the graph; names the workload.
        """
        with self._rejections(workload):
            if self.needs_graph(workload) and graph is None:
                graph = workload.onnx_bytes(module)
        return self._started(self.session_type(self, workload, build), module, graph)

    def _started(self, session: Session, module: nn.Module | None, graph: bytes | None) -> Session:
        """The session, opened and with inputs."""
        return_freed_memory()
        with self._rejections(session.workload):
            session._open(module, graph)
        session._is_open = True
        try:
            with self._rejections(session.workload):
                arrays = session.workload.random_inputs()
            session.set_inputs(arrays)
        except BaseException:
            session.close()
            raise
        return session

    @contextmanager
    def _rejections(self, workload: Workload) -> Iterator[None]:
        """Whatever keeps a workload from being loaded becomes EngineError that names it."""
        try:
            yield
        except EngineError:
            raise
        except (Exception, SystemExit) as error:
            raise engine_error(
                f"{self.title} rejects {workload.name}: {reason_of(error)}"
            ) from error

    def check_parity(self, session: Session, module: nn.Module | None = None) -> float:
        """Difference from the workload's reference on random inputs (``parity``).

        Args:
            session: its inputs are replaced.
            module: the workload's module, where it is built already.

        Raises:
            ParityError: it exceeds what is allowed for the coarser of the engine's precision and
                the workload's own arithmetic, or numbers or shapes of outputs differ.
        """
        workload = session.workload
        arrays = workload.random_inputs(seed=PARITY_SEED)
        session.set_inputs(arrays)
        session.run()
        found = workload.compared(session.outputs())
        expected = workload.expected(arrays, module)
        shapes = [item.shape for item in found], [item.shape for item in expected]
        if shapes[0] != shapes[1]:
            given, wanted = (", ".join(map(str, items)) for items in shapes)
            raise ParityError(
                f"{workload.name}: {self.title} gives {given}, {workload.reference} {wanted}"
            )
        difference, allowed = worst_difference(found, expected, self.precision, workload.arithmetic)
        if math.isinf(difference):
            raise ParityError(
                f"{workload.name}: {self.title} and {workload.reference} differ in where outputs "
                "are NaN or infinite; nothing was timed"
            )
        if difference > allowed:
            raise ParityError(
                f"{workload.name}: {self.title} differs from {workload.reference} by "
                f"{difference:.2g} of the largest output, allowed {allowed:.2g}; nothing was timed"
            )
        return difference


def cpu_device(name: str, title: str) -> Device:
    """The CPU as a device, for engines that run there only."""
    if name != "cpu":
        raise EngineError(f"{title} runs on the CPU here, not on {name!r}")
    return Device("cpu", cpu_model())
