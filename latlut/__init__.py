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
    from latlut.commands import bench, profile, run_search, validate
    from latlut.errors import LatlutError
    from latlut.opspec import OpSpec
    from latlut.pricing.estimator import estimate
    from latlut.table.table import LatencyTable

__all__ = [
    "LatencyTable",
    "LatlutError",
    "OpSpec",
    "__version__",
    "bench",
    "estimate",
    "profile",
    "run_search",
    "validate",
]

#: Public name -> module that defines it. No name is also a module's: importing a module
#: ``latlut.estimate`` would put the module where the function is expected.
_HOMES = {
    "LatencyTable": "latlut.table.table",
    "LatlutError": "latlut.errors",
    "OpSpec": "latlut.opspec",
    "bench": "latlut.commands",
    "estimate": "latlut.pricing.estimator",
    "profile": "latlut.commands",
    "run_search": "latlut.commands",
    "validate": "latlut.commands",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'latlut' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
