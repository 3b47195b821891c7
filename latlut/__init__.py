"""Latency lookup tables: measure every operator of a search space, prove how far the sum holds.

    from latlut import LatencyTable, OpSpec, estimate

The public names are imported when they are first used, so that ``import latlut`` and
``latlut --help`` load neither torch nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latlut.estimator import estimate
    from latlut.opspec import OpSpec
    from latlut.table import LatencyTable

__version__ = "0.1.0"

__all__ = ["LatencyTable", "OpSpec", "__version__", "estimate"]

#: Public name -> module that defines it. No name is also a module's: importing a module
#: ``latlut.estimate`` would put the module where the function is expected.
_HOMES = {
    "LatencyTable": "latlut.table",
    "OpSpec": "latlut.opspec",
    "estimate": "latlut.estimator",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'latlut' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
