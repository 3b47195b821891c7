"""Fitting a derived network to a latency: the least improbable changes that bring it to the target.

The argmax of a relaxed architecture seldom lands on the target: near the end of a search one cell
more or less moves the latency by several percent. So beside the argmax, a search derives the
network that is nearest to it in probability among those near the target. From the argmax on, one
choice at a time is changed (a cell's operator, skip included, a map's width, a branch's
downsampling positions), each time the change that brings the latency nearer at the least loss of
log probability per share of the distance, until the latency is within the tolerance.

    loss(change) = log p(choice now) - log p(choice then),  under alpha, beta, gamma

Fitting towards 0 and towards infinity gives the range of latencies that the space can reach.

The paper leaves this step to chance: it picks, over epochs, by Target(m).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from latlut.search.derive.choices import Floats, choices_of
from latlut.search.derive.derive import (
    Placed,
    best_positions,
    compared_positions,
    derive_from,
    position_log_score,
)
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.spaces import Architecture
from latlut.spaces.topology import Place, path_places

#: Milliseconds of a network.
Price = Callable[[Architecture], float]

#: No fit takes more changes than this; a network has about 30 cells with two choices each.
MAX_CHANGES = 200


@dataclass(frozen=True)
class Fit:
    """A network near the target.

    ``layers`` is where it lies, see ``derive.Placed``; ``loss`` is the log probability given up for
    it, natural logarithm, 0 for the argmax itself; ``changes`` how many choices differ from it.
    """

    architecture: Architecture
    latency_ms: float
    loss: float
    changes: int
    layers: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _State:
    """What is chosen: operators and widths that differ from the argmax, and the positions."""

    operators: Mapping[Place, str]
    widths: Mapping[Place, int]
    downs: Mapping[int, tuple[int, ...]]


class Fitter:
    """Fits networks derived from one relaxed architecture.

    Args:
        relaxed: where the probabilities come from.
        scales: where the branches end.
        price: a network's latency, milliseconds.
        allow_skip: False for a teacher.
    """

    def __init__(
        self,
        relaxed: RelaxedArchitecture,
        scales: tuple[int, ...],
        price: Price,
        allow_skip: bool = True,
    ) -> None:
        self.choices = choices_of(relaxed)
        self.scales = tuple(sorted(scales))
        self.allow_skip = allow_skip and "skip" in relaxed.space.operators
        self._price = price
        self._priced: dict[Architecture, float] = {}
        self._gamma = _log_widths(relaxed)
        space = relaxed.space
        self._operators = [name for name in space.operators if name != "skip" or self.allow_skip]
        self._positions = {scale: compared_positions(space, scale) for scale in self.scales}
        self._path = {
            downs: position_log_score(self.choices, downs)
            for positions in self._positions.values()
            for downs in positions
        }
        self._alpha = {
            place: dict(zip(space.operators, _log_softmax(row), strict=True))
            for place, row in self.choices.alpha.items()
        }

    @cached_property
    def argmax(self) -> _State:
        """The choices of largest probability."""
        positions = {
            scale: best_positions(self.choices, scale, "corrected") for scale in self.scales
        }
        return _State({}, {}, positions)

    @cached_property
    def _likeliest(self) -> dict[Place, str]:
        return {
            place: self.choices.operator(place, self.allow_skip) for place in self.choices.alpha
        }

    @property
    def argmax_ms(self) -> float:
        """Latency of the derived network as it is."""
        return self._ms(self._placed(self.argmax).architecture)

    def fit(self, target_ms: float, tolerance: float) -> Fit:
        """The network that the changes lead to; nearest the target where none comes within.

        Args:
            target_ms: positive; 0 or infinity lead to the fastest and the slowest that single
                changes reach.
            tolerance: relative distance from the target that is near enough.
        """
        state, loss, changes = self.argmax, 0.0, 0
        network = self._placed(state).architecture
        for _ in range(MAX_CHANGES):
            distance = _distance(self._ms(network), target_ms)
            if distance <= math.log1p(tolerance):
                break
            best: tuple[tuple[float, float], _State, float, Architecture] | None = None
            for following, lost in self._neighbours(state, network):
                other = self._placed(following).architecture
                gained = distance - _distance(self._ms(other), target_ms)
                if gained <= 1e-9:
                    continue
                # Never pay for a longer way: what is gained beyond the target does not count,
                # and of equally cheap ones the larger step comes first.
                rank = (max(lost, 1e-6) / gained, -gained)
                if best is None or rank < best[0]:
                    best = rank, following, lost, other
            if best is None:
                break
            _, state, lost, network = best
            loss += lost
            changes += 1
        placed = self._placed(state)
        return Fit(network, self._ms(network), loss, changes, placed.layers)

    def _neighbours(self, state: _State, network: Architecture) -> Iterator[tuple[_State, float]]:
        """Every state that differs in one choice on a path, and the loss of going there."""
        layers = self.choices.space.layers
        places = {p for downs in state.downs.values() for p in path_places(layers, downs)}
        for place in sorted(places):
            alpha = self._alpha[place]
            now = state.operators.get(place, self._likeliest[place])
            for operator in self._operators:
                if operator != now:
                    changed = {**state.operators, place: operator}
                    yield replace(state, operators=changed), alpha[now] - alpha[operator]
            gamma = self._gamma.get(place, {})
            if len(gamma) > 1:
                width = state.widths.get(place, self.choices.width[place])
                for other in gamma:
                    if other != width:
                        widths = {**state.widths, place: other}
                        yield replace(state, widths=widths), gamma[width] - gamma[other]
        for scale, downs in state.downs.items():
            for other_downs in self._positions[scale]:
                if other_downs != downs and _is_step(downs, other_downs):
                    moved = {**state.downs, scale: other_downs}
                    yield replace(state, downs=moved), self._path[downs] - self._path[other_downs]

    def _placed(self, state: _State) -> Placed:
        raised = {place: self._raised(place, name) for place, name in state.operators.items()}
        choices = replace(
            self.choices,
            alpha={**self.choices.alpha, **raised},
            width={**self.choices.width, **state.widths},
        )
        return derive_from(choices, state.downs, self.allow_skip)

    def _raised(self, place: Place, name: str) -> Floats:
        """The cell's logits with ``name`` as their argmax, others as they were."""
        logits = self.choices.alpha[place].copy()
        number = self.choices.space.operators.index(name)
        if int(logits.argmax()) != number:
            logits[number] = logits.max() + 1.0
        return logits

    def _ms(self, network: Architecture) -> float:
        if network not in self._priced:
            self._priced[network] = self._price(network)
        return self._priced[network]


def reachable_ms(
    relaxed: RelaxedArchitecture,
    price: Price,
    branch_sets: tuple[tuple[int, ...], ...],
) -> tuple[float, float]:
    """(fastest, slowest) network of the space, milliseconds, as far as single changes find them.

    They start from networks of one operator and one width throughout.

    Args:
        relaxed: says which space and widths; its logits do not matter.
    """
    extremes = []
    for target_ms in (0.0, math.inf):
        found = []
        for scales in branch_sets:
            starts = [
                Fitter(_uniform(relaxed, operator, width), scales, price)
                for operator in range(len(relaxed.space.operators))
                for width in {0, len(relaxed.widths) - 1}
            ]
            best = min(starts, key=lambda start: _distance(start.argmax_ms, target_ms))
            found.append(best.fit(target_ms, 0.0).latency_ms)
        extremes.append(min(found) if target_ms == 0 else max(found))
    return extremes[0], extremes[1]


def _uniform(relaxed: RelaxedArchitecture, operator: int, width: int) -> RelaxedArchitecture:
    """A relaxed architecture whose argmax is one operator and one width throughout."""
    found = copy.deepcopy(relaxed)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.zero_()
        found.alpha[:, operator] = 1.0
        found.gamma[:, width] = 1.0
    return found


def _distance(latency_ms: float, target_ms: float) -> float:
    """|log(latency / target)|; towards 0 and infinity what orders latencies as that would."""
    if target_ms == 0:
        return math.log(latency_ms) + 100
    if target_ms == math.inf:
        return 100 - math.log(latency_ms)
    return abs(math.log(latency_ms / target_ms))


def _is_step(downs: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether one position moves by one layer, or all positions do together."""
    moves = [b - a for a, b in zip(downs, other, strict=True)]
    return sum(map(abs, moves)) == 1 or (len(set(moves)) == 1 and abs(moves[0]) == 1)


def _log_softmax(logits: Floats) -> list[float]:
    shifted = logits - logits.max()
    values: list[float] = (shifted - np.log(np.exp(shifted).sum())).tolist()
    return values


def _log_widths(relaxed: RelaxedArchitecture) -> dict[Place, dict[int, float]]:
    """Per map the log probability of each of its widths."""
    rows = relaxed.gamma.detach().double().cpu().numpy()
    return {
        place: dict(zip(relaxed.widths, _log_softmax(row), strict=True))
        for place, row in zip(relaxed.space.cells()[1:], rows, strict=True)
    }
