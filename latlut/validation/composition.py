"""Why a network takes longer, or shorter, than the sum of its entries: effect by effect.

The difference between a measured network and its plain sum is divided among what the engine does
to operators that follow each other, with its own layers (``measure.layers``) as the evidence:

    whole - sum of entries = sum of effects

With the operators' profiles alone (``profile_alone``) each entry is taken apart in the same way:
its own layers, the conversions at its ends, the call, and what the machine is slower by now than
while the table was made. What both sides have, such as the cost of profiling, then cancels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from latlut.engines.base import Engine, LayerTime
from latlut.measure.layers import LayerGroup, LayerView
from latlut.measure.timing import TimingSettings, measure
from latlut.operators.graph_cache import GraphCache
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.stats.quantiles import statistic_interval

CONVERSION = "layout conversion"
COUNTED_CONVERSION = "layout conversion counted in the entry"
OTHER_ADDED = "other added layers"
FUSION = "fusion"
KERNEL = "another kernel"
CACHE = "cache"
ENDS = "ends counted in the entry"
ALLOCATION = "allocation and dispatch"
INTERRUPTIONS = "other processes"
PROFILING = "profiling"
CALLS = "calls counted in the entry"
SPEED = "speed of the machine"
UNPRICED = "without an entry"

#: Below this part of the time on a CPU, what a network takes outside its layers is others' time.
LEAST_CPU_SHARE = 0.95

#: Parts of the words by which engines name a layer that only moves data into another layout.
_CONVERSIONS = (
    "reorder", "convert", "transpose", "reformat", "permute", "contiguous", "copy", "clone",
    "aten::to",
)  # fmt: skip
#: The prefix of PyTorch's operators. None of them is added: the network's modules call them all.
_CALLED = "aten::"
_SHOWN = 3


@dataclass(frozen=True)
class CompositionEffect:
    """A part of the difference between a network and the sum of its entries.

    ``ms`` is milliseconds, positive where the network takes longer for it; ``evidence`` names the
    layers and entries that it rests on, the largest first.
    """

    name: str
    ms: float
    evidence: str


@dataclass(frozen=True)
class Alone:
    """An operator by itself, as it runs now.

    Args:
        layers: as the engine's profiler times them.
        whole_ms: a run without profiling, by the table's statistic, milliseconds.
    """

    layers: tuple[LayerTime, ...]
    whole_ms: float

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
        return self.whole_ms - _sum_ms(self.layers)


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
    """
    cache = cache or GraphCache()
    timing = TimingSettings(
        statistic=statistic, max_samples=400, min_time_s=0.06, time_cap_s=0.1, warmup_cap_s=0.1
    )
    found: dict[OpSpec, Alone] = {}
    for spec in dict.fromkeys(specs):
        workload = Workload.from_spec(spec)
        module = workload.build()
        graph = cache.onnx_bytes(workload, module) if engine.reads_onnx else None
        with engine.load(workload, module=module, graph=graph) as session:
            before = measure(session.sample_ns, timing).samples_ns
            layers = session.layers(runs)
            after = measure(session.sample_ns, timing).samples_ns
        samples_ms = np.concatenate([before, after]) / 1e6
        found[spec] = Alone(layers, statistic_interval(samples_ms, statistic).value)
    return found


def composition_effects(
    view: LayerView,
    alone: Mapping[OpSpec, Alone] | None = None,
    mode: str = "standalone",
) -> tuple[CompositionEffect, ...]:
    """The difference between a network and its plain sum, divided into effects, largest first.

    Args:
        view: the network, layer by layer.
        alone: the same operators by themselves; those that it lacks are judged by their entries.
            Only for entries measured standalone.
        mode: how the table isolates operators, one of ``table.identity.MODES``.

    Returns:
        Effects that are not 0; their sum is ``view.whole_ms.value - view.estimate.plain_ms``.

        - ``layout conversion``: layers of no operator that convert layouts inside the network.
        - ``layout conversion counted in the entry``: those at the ends of operators alone, which
          the network does not pay.
        - ``other added layers``: the other layers of no operator.
        - ``fusion``: operators that share layers, that leave a layer of theirs to another, or
          that no layer computes.
        - ``another kernel``: operators that the engine computes otherwise alone, perhaps because
          it keeps their maps in another layout there.
        - ``cache``: operators whose layers take longer, or shorter, than alone: their maps and
          weights are elsewhere than when the same operator runs again and again.
        - ``calls counted in the entry``: every entry holds the start of a run, the network one.
        - ``allocation and dispatch``: the time of no layer; ``other processes`` where these had
          the CPU for more than 5% of it, ``profiling`` where the profiled layers take longer than
          the network.
        - ``speed of the machine``: what the operators alone take longer now than in the table.
        - ``ends counted in the entry``: what standalone entries are dearer by than the layers,
          of operators without a profile alone: conversions, another kernel, the start of a run.
        - ``without an entry``: layers of operators that the table does not price.
    """
    ledger = _Ledger()
    prices = {term.spec: term.latency_ms for term in view.estimate.terms}
    for layer in view.added:
        name = CONVERSION if is_conversion(layer) else OTHER_ADDED
        ledger.add(name, layer.time_ms, f"{layer.kind} {layer.name}", f"{layer.time_ms:.3g} ms")
    profiled: list[Alone] = []
    for group in view.groups:
        specs = [node.spec for node in group.nodes if node.spec in prices]
        entries_ms = sum(prices[spec] for spec in specs)
        found = [alone[spec] for spec in specs if spec in alone] if alone else []
        label = " + ".join(f"{node.name} ({node.spec})" for node in group.nodes)
        if not specs:
            ledger.add(UNPRICED, group.layers_ms, label, _time(group.layers))
        elif len(found) < len(specs):
            difference_ms = group.layers_ms - entries_ms
            word = "entry" if len(specs) == 1 else "entries"
            detail = f"{_time(group.layers)}, {word} {entries_ms:.3g} ms"
            ledger.add(_name_by_entry(group, difference_ms, mode), difference_ms, label, detail)
        else:
            own = tuple(layer for item in found for layer in item.own)
            detail = f"{_time(group.layers)}, alone {_sum_ms(own):.3g} ms"
            name = _name_by_profile(group, own)
            if name != CACHE and group.layers:
                detail += f": {_kinds(group.layers)} instead of {_kinds(own)}"
            ledger.add(name, group.layers_ms - _sum_ms(own), label, detail)
            for spec, item in zip(specs, found, strict=True):
                _add_ends(ledger, spec, item, prices[spec])
            profiled += found
    _add_outside(ledger, view, profiled)
    return ledger.effects()


def _add_ends(ledger: _Ledger, spec: OpSpec, alone: Alone, entry_ms: float) -> None:
    """What an entry holds beside the operator's own layers, without its time of no layer."""
    added_ms = _sum_ms(alone.added)
    ledger.add(COUNTED_CONVERSION, -added_ms, str(spec), f"alone {_time(alone.added)}")
    detail = f"alone {alone.whole_ms:.3g} ms now, entry {entry_ms:.3g} ms"
    ledger.add(SPEED, alone.whole_ms - entry_ms, str(spec), detail)


def _add_outside(ledger: _Ledger, view: LayerView, profiled: Sequence[Alone]) -> None:
    """The network's time of no layer, less that which its entries hold.

    Profiling is in the layers of both, and cancels.
    """
    network_ms = view.whole_ms.value - view.layers_ms
    alone_ms = sum(item.time_of_no_layer_ms for item in profiled)
    difference_ms = network_ms - alone_ms
    if difference_ms < 0:
        name = CALLS if profiled else PROFILING
    elif view.cpu_share is not None and view.cpu_share < LEAST_CPU_SHARE:
        name = INTERRUPTIONS
    else:
        name = ALLOCATION
    count = len(view.added) + sum(len(group.layers) for group in view.groups)
    detail = f"{network_ms:+.3g} ms beside its {count} layers"
    if profiled:
        detail += f", {alone_ms:+.3g} ms in {len(profiled)} operators alone"
    if name == INTERRUPTIONS:
        detail += f"; on a CPU for {100 * (view.cpu_share or 0.0):.0f}% of the time"
    ledger.add(name, difference_ms, f"whole {view.whole_ms.value:.4g} ms", detail)


class _Ledger:
    """What contributes to each effect."""

    def __init__(self) -> None:
        self._entries: dict[str, list[tuple[float, str, str]]] = {}

    def add(self, name: str, ms: float, label: str, detail: str) -> None:
        if ms:
            self._entries.setdefault(name, []).append((ms, label, detail))

    def effects(self) -> tuple[CompositionEffect, ...]:
        found = []
        for name, items in self._entries.items():
            total = sum(ms for ms, _, _ in items)
            # First what goes the way of the sum: that is what it is made of.
            items.sort(key=lambda item: -item[0] if total >= 0 else item[0])
            shown = "; ".join(f"{label}: {detail}" for _, label, detail in items[:_SHOWN])
            more = len(items) - _SHOWN
            found.append(
                CompositionEffect(name, total, shown + (f"; and {more} more" if more > 0 else ""))
            )
        return tuple(sorted(found, key=lambda effect: -abs(effect.ms)))


def _is_added(layer: LayerTime) -> bool:
    """Whether the engine put a layer of an operator alone there, PyTorch's modules call theirs."""
    return not layer.source_nodes and is_conversion(layer) and not layer.kind.startswith(_CALLED)


def _is_one_operator(group: LayerGroup) -> bool:
    return len(group.nodes) == 1 and bool(group.layers)


def _name_by_entry(group: LayerGroup, difference_ms: float, mode: str) -> str:
    """The effect that a group's difference from its entries is put down to."""
    if not _is_one_operator(group):
        return FUSION
    # Entries in context hold neither the ends of a graph nor a call.
    return CACHE if difference_ms >= 0 or mode != "standalone" else ENDS


def _name_by_profile(group: LayerGroup, own: Sequence[LayerTime]) -> str:
    """The effect that a group's difference from its operators alone is put down to."""
    inside = Counter((layer.kind, layer.detail) for layer in group.layers)
    alone = Counter((layer.kind, layer.detail) for layer in own)
    if not _is_one_operator(group) or inside < alone:
        return FUSION
    return CACHE if inside == alone else KERNEL


def _kinds(layers: Sequence[LayerTime]) -> str:
    shown = (f"{layer.kind} ({layer.detail})" if layer.detail else layer.kind for layer in layers)
    return " + ".join(shown)


def _sum_ms(layers: Iterable[LayerTime]) -> float:
    return sum(layer.time_ms for layer in layers)


def _time(layers: Sequence[LayerTime]) -> str:
    """``layers 0.81 ms``, or that there is none."""
    if not layers:
        return "no layer"
    return f"layer{'s' if len(layers) > 1 else ''} {_sum_ms(layers):.3g} ms"
