"""Why the worst estimates are off: the networks run layer by layer, and their effects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from latlut.engines.base import Engine
from latlut.errors import EngineError
from latlut.measure.alone import Alone, profile_alone
from latlut.measure.layers import LayerView, layer_view
from latlut.opspec import OpSpec
from latlut.table.space import TableSpace
from latlut.table.table import LatencyTable
from latlut.validation.composition import CompositionEffect, composition_effects
from latlut.validation.validate import Validation


@dataclass(frozen=True)
class Explained:
    """A network and what its difference from the sum of its entries is made of."""

    label: str
    """Its estimate and its measurement, for people."""
    view: LayerView
    """Its layers."""
    effects: tuple[CompositionEffect, ...]
    """The difference divided, the largest first."""


def explain(
    table: LatencyTable,
    engine: Engine,
    found: Validation,
    where: TableSpace,
    count: int,
    on_refusal: Callable[[str], None],
) -> list[Explained]:
    """The worst estimated networks, layer by layer.

    Args:
        table: prices them.
        engine: as the table was measured; the caller holds its device (``measuring_on``).
        found: their validation.
        where: at which input size and batch.
        count: how many networks at most.
        on_refusal: told why, where the engine cannot show one layer by layer; it is the last then.
    """
    explained: list[Explained] = []
    alone: dict[OpSpec, Alone] = {}
    own = table.identity
    for item in found.worst(count):
        nodes = item.architecture.nodes(where.input_size, where.batch)
        label = f"{item.plain.ms:.4g} ms estimated plainly, {item.measured_ms:.4g} ms measured"
        try:
            view = layer_view(engine, nodes, table)
            if own.mode == "standalone":
                missing = dict.fromkeys(node.spec for node in nodes if node.spec not in alone)
                alone |= profile_alone(engine, list(missing), own.statistic)
        except EngineError as error:
            on_refusal(f"not shown layer by layer: {error}")
            break
        explained.append(Explained(label, view, composition_effects(view, alone or None, own.mode)))
    return explained
