"""Opening a session: module, graph, engine, and the comparison with the reference before timing.

Whatever is timed is opened here, so that nothing is timed whose output was not compared once with
what the workload computes by its reference, PyTorch for our own operators.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from latlut.engines.base import Engine, Session
from latlut.errors import ParityError
from latlut.measure.stopwatch import Stopwatch
from latlut.operators.graph_cache import GraphCache
from latlut.operators.workloads import Workload

if TYPE_CHECKING:
    from torch import nn


class Opening:
    """Opens sessions of one workload; what does not change between them is made once.

    Args:
        engine: what runs it.
        workload: what is run.
        cache: of exported graphs.
        watch: told what the time went into.
        build: number of the independent build, where the engine chooses tactics.

    Attributes:
        graph: the ONNX model, None before it was exported and for engines that read none.
        difference: from the reference, as ``Engine.check_parity`` gives it; None before a check.
    """

    def __init__(
        self,
        engine: Engine,
        workload: Workload,
        cache: GraphCache,
        watch: Stopwatch | None = None,
        build: int = 0,
    ) -> None:
        self.engine, self.workload, self.cache, self.build = engine, workload, cache, build
        self.graph: bytes | None = None
        self.difference: float | None = None
        self._module: nn.Module | None = None
        self._watch = watch or Stopwatch()

    def open(self, *, is_checked: bool = True) -> Session:
        """A fresh session with inputs; the caller closes it.

        Args:
            is_checked: compare its output with the reference first, where it has one.

        Raises:
            EngineError: the engine rejects the workload, or it cannot be exported.
            ParityError: the engine computes something else.
        """
        engine, watch, module = self.engine, self._watch, self._module
        is_checked = is_checked and engine.is_compared and self.workload.has_reference
        is_compared = is_checked and self.workload.has_module
        if module is None and (is_compared or not engine.reads_onnx):
            # A module that is built to be run is a part of building the session.
            with watch.measuring("building modules" if is_checked else "building"):
                module = self.workload.build()
        if engine.needs_graph(self.workload):
            if self.graph is None:
                with watch.measuring("exporting"):
                    self.graph = self.cache.onnx_bytes(self.workload, module)
        elif not engine.reads_onnx:
            self._module = module
        with watch.measuring("building"):
            session = engine.load(self.workload, module=module, graph=self.graph, build=self.build)
        if is_checked:
            try:
                with watch.measuring("checking"):
                    self.difference = engine.check_parity(session, module)
            except BaseException as error:
                session.close()
                if isinstance(error, ParityError):
                    raise ParityError(
                        f"{error}; with --unchecked it is timed all the same"
                    ) from error
                raise
        return session
