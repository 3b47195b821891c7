"""The engine contract: what every inference engine must do to be measured.

An engine loads a workload and gives a session. A session keeps its inputs and outputs on the
device, runs the workload, and times runs with the device's own clock; copies happen outside the
timed region. Public methods check, the hooks (leading underscore) do the engine's work:

    _open(module, graph) build the session           _run()           one inference, blocking
    _set_inputs(arrays)  host to device              _outputs()       device to host
    _close()             free it                     _sample_ns(n)    time n runs

An engine that reads ONNX gets a serialised graph, any other the PyTorch module.

One behaviour suite, tests/test_engines.py, runs over every engine. No engine ever stands in
for another: one that cannot run here says why and how to get it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from latlut.errors import EngineError, LatlutError, ParityError, SpecError
from latlut.graphs import GraphCache, Workload

#: Largest difference from PyTorch that passes, relative to the largest output value.
PARITY_TOLERANCE = {"fp32": 2e-3, "fp16": 5e-2, "bf16": 2e-1, "int8": 3e-1}


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


class Session(ABC):
    """An engine loaded with one workload, ready to run. A context manager."""

    def __init__(self, engine: Engine, workload: Workload) -> None:
        self.engine = engine
        self.workload = workload
        self._is_open = False
        self._has_inputs = False

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_inputs(self, arrays: Sequence[np.ndarray]) -> None:
        """Copy the inputs to the device.

        Args:
            arrays: float32, one per input, of the workload's ``input_shapes``.

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
        if any(array.dtype != np.float32 for array in arrays):
            raise SpecError(f"{self.workload.name}: inputs must be float32")
        with self._engine_errors():
            self._set_inputs([np.ascontiguousarray(array) for array in arrays])
        self._has_inputs = True

    def run(self) -> None:
        """One inference; returns when the outputs are ready on the device."""
        self._check_ready()
        with self._engine_errors():
            self._run()

    def sample_ns(self, count: int) -> np.ndarray:
        """Run ``count`` times and give each run's duration: (count,) int64, nanoseconds."""
        self._check_ready()
        if count < 1:
            raise SpecError(f"count must be at least 1, received {count}")
        with self._engine_errors():
            return self._sample_ns(count)

    def outputs(self) -> list[np.ndarray]:
        """The last run's outputs on the host, float32."""
        self._check_ready()
        return [np.asarray(array, dtype=np.float32) for array in self._outputs()]

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
        except (LatlutError, MemoryError):
            raise
        except Exception as error:
            title = self.engine.title
            raise EngineError(f"{title} failed on {self.workload.name}: {error}") from error

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

    def _sample_ns(self, count: int) -> np.ndarray:
        run, clock = self._run, time.perf_counter_ns
        durations = np.empty(count, dtype=np.int64)
        for index in range(count):
            started = clock()
            run()
            durations[index] = clock() - started
        return durations


class Engine(ABC):
    """An inference engine with a fixed precision and number of threads.

    Args:
        threads: threads of one inference on a CPU; at least 1. Ignored by GPU engines.
        precision: one of ``precisions``.
        device: ``cpu``, or ``cuda:N`` where the engine has it.

    Raises:
        EngineError: the engine does not work here, or lacks the precision or device.
        SpecError: ``threads`` is not positive.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    reads_onnx: ClassVar[bool] = True
    session_type: ClassVar[type[Session]]

    def __init__(self, threads: int = 1, precision: str = "fp32", device: str = "cpu") -> None:
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
        self.device = self._find_device(device)
        self.version = str(found.version)

    @classmethod
    @abstractmethod
    def availability(cls) -> Availability:
        """Whether the engine works on this machine."""

    @abstractmethod
    def _find_device(self, name: str) -> Device:
        """The device of that name, or EngineError naming those that are there."""

    def load(
        self,
        workload: Workload,
        *,
        module: nn.Module | None = None,
        graph: bytes | None = None,
    ) -> Session:
        """A session that runs ``workload`` on its own random inputs.

        Args:
            workload: the operator or network.
            module: its PyTorch module where it is built already; built on demand otherwise.
            graph: its ONNX model where the engine reads ONNX (``GraphCache.onnx_bytes``);
                exported on demand otherwise.

        Raises:
            EngineError: the engine rejects the graph; names the workload.
        """
        session = self.session_type(self, workload)
        try:
            if self.reads_onnx and graph is None:
                graph = GraphCache(is_enabled=False).onnx_bytes(workload, module)
            session._open(module, graph)
        except (MemoryError, EngineError):
            raise
        except Exception as error:
            raise EngineError(f"{self.title} rejects {workload.name}: {error}") from error
        session._is_open = True
        try:
            session.set_inputs(workload.random_inputs())
        except BaseException:
            session.close()
            raise
        return session

    def check_parity(self, session: Session, module: nn.Module) -> float:
        """Largest difference from PyTorch on the session's inputs, relative to the largest output.

        Raises:
            ParityError: it exceeds ``PARITY_TOLERANCE``, shapes differ, or values are not finite.
        """
        import torch

        arrays = session.workload.random_inputs(seed=1)
        session.set_inputs(arrays)
        session.run()
        (found,) = session.outputs()
        with torch.inference_mode():
            expected = module(*(torch.from_numpy(array) for array in arrays)).numpy()
        name = session.workload.name
        if found.shape != expected.shape:
            raise ParityError(f"{name}: {self.title} gives {found.shape}, PyTorch {expected.shape}")
        scale = float(np.abs(expected).max()) or 1.0
        difference = float(np.abs(found - expected).max()) / scale
        if not difference <= PARITY_TOLERANCE[self.precision]:
            raise ParityError(
                f"{name}: {self.title} differs from PyTorch by {difference:.2g} of the largest "
                f"output, allowed {PARITY_TOLERANCE[self.precision]:.2g}; nothing was timed"
            )
        return difference


def cpu_device(name: str, title: str) -> Device:
    """The CPU as a device, for engines that run there only."""
    if name != "cpu":
        raise EngineError(f"{title} runs on the CPU here, not on {name!r}")
    from latlut.environment import cpu_model

    return Device("cpu", cpu_model())
