"""Operators by themselves, as the engine runs them now, layer by layer.

What a table holds of an operator is one number. To see what a network does otherwise, the same
operators are run once more alone and profiled: beside their layers stand the conversions at their
ends and the time of no layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from latlut.engines.base import Engine, LayerTime
from latlut.measure.opening import Opening
from latlut.measure.timing import TimingSettings, measure
from latlut.operators.graph_cache import GraphCache
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.stats.quantiles import statistic_interval

#: Parts of the words by which engines name a layer that only moves data into another layout.
_CONVERSIONS = (
    "reorder", "convert", "transpose", "reformat", "permute", "contiguous", "copy", "clone",
    "aten::to",
)  # fmt: skip
#: The prefix of PyTorch's operators. None of them is added: the network's modules call them all.
_CALLED = "aten::"


@dataclass(frozen=True)
class Alone:
    """An operator by itself, as it runs now."""

    layers: tuple[LayerTime, ...]
    """As the engine's profiler times them."""
    whole_ms: float
    """A run without profiling, by the table's statistic, milliseconds."""

    @property
    def added(self) -> tuple[LayerTime, ...]:
        """Layers that the engine put at its ends."""
        return tuple(layer for layer in self.layers if _is_added(layer))

    @property
    def own(self) -> tuple[LayerTime, ...]:
        """Layers that compute the operator, those that cannot be traced back among them."""
        return tuple(layer for layer in self.layers if not _is_added(layer))

    @property
    def time_of_no_layer_ms(self) -> float:
        """What a run takes beside its layers; below 0 where profiling costs more than that."""
        return self.whole_ms - sum_ms(self.layers)


def is_conversion(layer: LayerTime) -> bool:
    """Whether a layer only brings its input into another memory layout or precision."""
    return any(word in layer.kind.lower() for word in _CONVERSIONS)


def profile_alone(
    engine: Engine,
    specs: Iterable[OpSpec],
    statistic: str,
    runs: int = 20,
    cache: GraphCache | None = None,
) -> dict[OpSpec, Alone]:
    """Run op specs one by one on the engine and profile their layers; about half a second each.

    Args:
        engine: as the table was measured; the caller holds its device (``measuring_on``).
        specs: each is run once.
        statistic: of the table, ``p10`` or ``median``.
        runs: profiled runs of each.
        cache: of exported graphs.

    Raises:
        EngineError: the engine rejects an operator, or has no per-layer view.
        ParityError: its output differs from PyTorch's.
    """
    cache = cache or GraphCache()
    timing = TimingSettings(
        statistic=statistic, max_samples=400, min_time_s=0.06, time_cap_s=0.1, warmup_cap_s=0.1
    )
    found: dict[OpSpec, Alone] = {}
    for spec in dict.fromkeys(specs):
        with Opening(engine, Workload.from_spec(spec), cache).open() as session:
            before = measure(session.sample_ns, timing, engine.resolution).samples_ns
            layers = session.layers(runs)
            after = measure(session.sample_ns, timing, engine.resolution).samples_ns
        samples_ms = np.concatenate([before, after]) / 1e6
        found[spec] = Alone(layers, statistic_interval(samples_ms, statistic).value)
    return found


def sum_ms(layers: Iterable[LayerTime]) -> float:
    """Time of all layers together, milliseconds."""
    return sum(layer.time_ms for layer in layers)


def _is_added(layer: LayerTime) -> bool:
    """Whether the engine put a layer of an operator alone there, PyTorch's modules call theirs."""
    return not layer.source_nodes and is_conversion(layer) and not layer.kind.startswith(_CALLED)
