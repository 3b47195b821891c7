"""Latency lookup tables: measure every operator of a search space, prove how far the sum holds.

    from latlut import LatencyTable, OpSpec, estimate

The public names are imported when they are first used, so that ``import latlut`` and
``latlut --help`` load neither torch nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from latlut.version import __version__

if TYPE_CHECKING:
    from latlut.opspec import OpSpec
    from latlut.pricing.estimator import estimate
    from latlut.table.table import LatencyTable

__all__ = ["LatencyTable", "OpSpec", "__version__", "estimate"]

#: Public name -> module that defines it. No name is also a module's: importing a module
#: ``latlut.estimate`` would put the module where the function is expected.
_HOMES = {
    "LatencyTable": "latlut.table.table",
    "OpSpec": "latlut.opspec",
    "estimate": "latlut.pricing.estimator",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'latlut' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
