"""FasterSeg: supernet, search against a latency table, derivation.

Reading order: ``supernet.relaxed`` (alpha, beta, gamma), ``supernet.supernet``,
``penalty.decoupled``, ``cosearch.problem``, ``cosearch.search`` (the loop), ``cosearch.run``,
``derive.derive``, ``derive.fitting``. The names below are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latlut.search.penalty.decoupled import DecoupledLatency
    from latlut.search.supernet.relaxed import RelaxedArchitecture
    from latlut.search.supernet.supernet import Supernet

__all__ = ["DecoupledLatency", "RelaxedArchitecture", "Supernet"]

_HOMES = {
    "DecoupledLatency": "latlut.search.penalty.decoupled",
    "RelaxedArchitecture": "latlut.search.supernet.relaxed",
    "Supernet": "latlut.search.supernet.supernet",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'latlut.search' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
