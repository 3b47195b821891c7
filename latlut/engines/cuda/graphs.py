"""Whether runs are replayed from a CUDA graph or enqueued one by one, and what an entry says of it.

The option ``cuda_graph`` is ``auto`` on a GPU: a graph where one can be captured, else plain
launches with the reason. ``on`` is refused where nothing can be captured, ``off`` captures nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from latlut.engines.base import EngineOption
from latlut.engines.device_errors import engine_error
from latlut.errors import DeviceLostError, EngineError

Graph = TypeVar("Graph")

#: How runs are launched, as an entry states it.
REPLAYED = "CUDA graph"
ENQUEUED = "enqueued one by one"
#: Characters of a library's message that an entry keeps.
_MOST_OF_REASON = 200

#: ``off`` is what an identity leaves out, so that tables from before ``auto`` keep their meaning.
CUDA_GRAPH = EngineOption(
    ("off", "on", "auto"),
    "replay a captured CUDA graph, without launch gaps (GPU only); auto: where one can be captured",
    on_gpu="auto",
)


class Captured(NamedTuple):
    """What came of a capture: the graph, None where runs are enqueued, and the words for it."""

    graph: object | None
    launch: str


def captured(choice: str, capture: Callable[[], object], recover: Callable[[], None]) -> Captured:
    """Capture a graph as the option says.

    Args:
        choice: the option's value.
        capture: makes the graph and proves it by a replay; raises where it cannot.
        recover: called after a failed capture with ``auto``; makes a plain run that proves that
            the stream can be used.

    Raises:
        EngineError: ``on``, and nothing can be captured; or a plain run fails as well.
        DeviceLostError: the GPU is of no more use.
    """
    if choice == "off":
        return Captured(None, ENQUEUED)
    try:
        return Captured(capture(), REPLAYED)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        found = engine_error(reason)
        if isinstance(error, DeviceLostError) or isinstance(found, DeviceLostError):
            raise found from error
        if choice == "on":
            raise EngineError(
                f"it cannot be captured as a CUDA graph: {reason}\n"
                "use cuda_graph=auto, which enqueues it then, or cuda_graph=off"
            ) from error
    recover()
    return Captured(None, f"{ENQUEUED} (not captured: {reason[:_MOST_OF_REASON]})")
