"""Why a network takes longer, or shorter, than the sum of its entries: effect by effect.

The difference between a measured network and its plain sum is divided among what the engine does
to operators that follow each other, with its own layers (``measure.layers``) as the evidence:

    whole - sum of entries = sum of effects

With the operators' profiles alone (``measure.alone``) each entry is taken apart in the same way:
its own layers, the conversions at its ends, the call, and what the machine is slower by now than
while the table was made. What both sides have, such as the cost of profiling, then cancels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latlut.engines.base import LayerTime
from latlut.measure.alone import Alone, is_conversion, sum_ms
from latlut.measure.layers import LayerGroup, LayerView
from latlut.opspec import OpSpec
from latlut.stats.machine_speed import is_disturbed

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
CALLS = "launch cost counted in the entry"
SPEED = "speed of the machine"
UNPRICED = "without an entry"

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
        - ``launch cost counted in the entry``: every entry holds the start of a run, a network has
          one.
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
            detail = f"{_time(group.layers)}, alone {sum_ms(own):.3g} ms"
            name = _name_by_profile(group, own)
            if name != CACHE and group.layers:
                detail += f": {_kinds(group.layers)} instead of {_kinds(own)}"
            ledger.add(name, group.layers_ms - sum_ms(own), label, detail)
            for spec, item in zip(specs, found, strict=True):
                _add_ends(ledger, spec, item, prices[spec])
            profiled += found
    _add_outside(ledger, view, profiled)
    return ledger.effects()


def _add_ends(ledger: _Ledger, spec: OpSpec, alone: Alone, entry_ms: float) -> None:
    """What an entry holds beside the operator's own layers, without its time of no layer."""
    added_ms = sum_ms(alone.added)
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
    elif is_disturbed(view.cpu_share):
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


def _time(layers: Sequence[LayerTime]) -> str:
    """``layers 0.81 ms``, or that there is none."""
    if not layers:
        return "no layer"
    return f"layer{'s' if len(layers) > 1 else ''} {sum_ms(layers):.3g} ms"
