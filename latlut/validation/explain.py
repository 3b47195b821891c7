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

#: Less of the error than this in the run with layers, and its effects do not explain it.
LEAST_REPRODUCED = 0.5


@dataclass(frozen=True)
class Explained:
    """A network and what its difference from the sum of its entries is made of."""

    label: str
    """Its sum of entries and its measurement, for people."""
    measured_ms: float
    """By the validation, milliseconds."""
    view: LayerView
    """Its layers, of a run of their own."""
    effects: tuple[CompositionEffect, ...]
    """The difference of that run from the sum of entries divided, the largest first."""

    @property
    def error_ms(self) -> float:
        """By how much it was measured above the sum of its entries, milliseconds."""
        return self.measured_ms - self.view.estimate.plain_ms

    @property
    def is_reproduced(self) -> bool:
        """Whether the run with layers shows at least half of the error."""
        shown_ms = self.view.whole_ms.value - self.view.estimate.plain_ms
        return self.error_ms != 0 and shown_ms / self.error_ms >= LEAST_REPRODUCED

    @property
    def main_effect(self) -> CompositionEffect | None:
        """The largest effect with the sign of the error; None where that was not reproduced."""
        if not self.is_reproduced:
            return None
        same = (effect for effect in self.effects if effect.ms * self.error_ms > 0)
        return max(same, key=lambda effect: abs(effect.ms), default=None)


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
        label = f"{item.plain.ms:.4g} ms sum of entries, {item.measured_ms:.4g} ms measured"
        try:
            view = layer_view(engine, nodes, table)
            if own.mode == "standalone":
                missing = dict.fromkeys(node.spec for node in nodes if node.spec not in alone)
                alone |= profile_alone(engine, list(missing), own.statistic)
        except EngineError as error:
            on_refusal(f"not shown layer by layer: {error}")
            break
        effects = composition_effects(view, alone or None, own.mode)
        explained.append(Explained(label, item.measured_ms, view, effects))
    return explained
