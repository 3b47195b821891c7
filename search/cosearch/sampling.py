"""Random networks near a latency, and their mutations: what the rank phase trains and compares.

A genome holds a choice for every cell and map of the supernet, as its logits would: an operator
(and a second one, where a skip cannot stay one), a width, and for each branch the layers of its
downsamplings. It is decoded by the rules of ``derive``, but for two that would leave out networks
of the space, good ones among them: a branch may downsample in its first layer, and every skip may
drop out. A network is brought near a latency by mutations that lead there.

The distribution: every choice uniform, then random single changes, kept where they do not lead away
from the latency (and seldom where they do), until it is within the tolerance.

Symbols: L layers, K operators.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from latlut.search.derive.choices import Choices, Floats
from latlut.search.derive.derive import Placed, derive_from
from latlut.search.derive.fitting import Price
from latlut.spaces import Architecture, FasterSegSpace
from latlut.spaces.topology import Place, path_places

#: Changes after which a walk towards a latency gives up.
MOST_CHANGES = 400
#: Probability with which a change that leads away is kept: out of dead ends.
ASTRAY = 0.03


@dataclass(frozen=True)
class Genome:
    """One choice of everything: see the module. ``operators``: the first and the second."""

    operators: Mapping[Place, tuple[str, str]]
    widths: Mapping[Place, int]
    downs: Mapping[int, tuple[int, ...]]


@dataclass(frozen=True)
class Sampled:
    """A genome with its network and latency."""

    genome: Genome
    placed: Placed
    latency_ms: float


class Sampler:
    """Draws and changes networks.

    Args:
        space: of the students. widths: theirs, twelfths. end_width: of stem and head.
        price: latency of a network, milliseconds.
        is_allowed: whether a network keeps to all other limits.
    """

    def __init__(
        self,
        space: FasterSegSpace,
        widths: tuple[int, ...],
        end_width: int,
        price: Price,
        is_allowed: Callable[[Architecture], bool] = lambda _: True,
    ) -> None:
        self.space, self.widths, self.end_width = space, widths, end_width
        self.price, self.is_allowed = price, is_allowed
        self._positions = {
            scale: space.positions(scale) for scales in space.branch_scales() for scale in scales
        }

    def draw(self, rng: random.Random) -> Genome:
        """Every choice uniform."""
        cells = self.space.cells()
        return Genome(
            {place: self._operators(rng) for place in cells},
            {place: rng.choice(self.widths) for place in cells[1:]},
            self._downs(rng),
        )

    def decoded(self, genome: Genome) -> Placed:
        """The network that the genome stands for."""
        return derive_from(
            Choices(
                self.space,
                self.end_width,
                {place: self._logits(*names) for place, names in genome.operators.items()},
                {},
                genome.widths,
            ),
            genome.downs,
            keep_depth=False,
        )

    def embedded(self, placed: Placed, rng: random.Random) -> Genome:
        """A genome of the network; choices that the network does not show are drawn."""
        found = self.draw(rng)
        operators, widths, downs = dict(found.operators), dict(found.widths), {}
        kept: dict[Place, str] = {}
        dropped: set[Place] = set()
        for branch, layers in zip(placed.architecture.branches, placed.layers, strict=True):
            cells = dict(zip(layers, branch.cells, strict=True))
            downs[branch.scale] = tuple(layer for layer in layers if cells[layer].is_down)
            path = path_places(self.space.layers, downs[branch.scale])
            dropped.update(place for layer, place in enumerate(path) if layer not in cells)
            for layer, cell in cells.items():
                kept[path[layer]] = cell.operator
                if layer < self.space.layers - 1:
                    widths[path[layer + 1]] = cell.width
        # A skip that one branch dropped and another had to keep is still a skip.
        operators |= {place: (name, name) for place, name in kept.items()}
        operators |= {place: ("skip", operators[place][1]) for place in dropped}
        return Genome(operators, widths, downs)

    def same_width(self, genome: Genome, width: int) -> Genome:
        """The genome with one width everywhere."""
        return replace(genome, widths=dict.fromkeys(genome.widths, width))

    def mutated(self, genome: Genome, rng: random.Random) -> Genome:
        """One choice changed, of those that its network can show."""
        layers = self.space.layers
        paths = [path_places(layers, downs) for downs in genome.downs.values()]
        places = sorted({place for path in paths for place in path})
        kinds = ["operator"] * 5 + ["downs"] * 2 + ["branches"]
        kinds += ["width"] * (5 if len(self.widths) > 1 else 0)
        kind = rng.choice(kinds)
        if kind == "operator":
            place = rng.choice(places)
            changed = {**genome.operators, place: self._operators(rng)}
            return replace(genome, operators=changed)
        if kind == "width":
            place = rng.choice([place for place in places if place[0]])
            return replace(genome, widths={**genome.widths, place: rng.choice(self.widths)})
        if kind == "downs":
            scale = rng.choice(sorted(genome.downs))
            changed_downs = {**genome.downs, scale: rng.choice(self._positions[scale])}
            return replace(genome, downs=changed_downs)
        drawn = self._downs(rng)
        return replace(
            genome, downs={scale: genome.downs.get(scale, drawn[scale]) for scale in drawn}
        )

    def towards(
        self, genome: Genome, target_ms: float, tolerance: float, rng: random.Random
    ) -> Sampled | None:
        """The network at the end of a walk from the genome to the latency; None if it got lost.

        Args:
            tolerance: relative distance from ``target_ms`` that is near enough.
        """
        placed = self.decoded(genome)
        ms = self.price(placed.architecture)
        for _ in range(MOST_CHANGES):
            distance = abs(math.log(ms / target_ms))
            if abs(ms / target_ms - 1) <= tolerance and self.is_allowed(placed.architecture):
                return Sampled(genome, placed, ms)
            other = self.mutated(genome, rng)
            other_placed = self.decoded(other)
            other_ms = self.price(other_placed.architecture)
            # Within the tolerance the other limits are looked for by a random walk.
            is_nearer = abs(math.log(other_ms / target_ms)) <= max(distance, math.log1p(tolerance))
            if is_nearer or rng.random() < ASTRAY:
                genome, placed, ms = other, other_placed, other_ms
        return None

    def _operators(self, rng: random.Random) -> tuple[str, str]:
        return rng.choice(self.space.operators), rng.choice(self.space.candidates)

    def _downs(self, rng: random.Random) -> dict[int, tuple[int, ...]]:
        scales = rng.choice(self.space.branch_scales())
        return {scale: rng.choice(self._positions[scale]) for scale in scales}

    def _logits(self, first: str, second: str) -> Floats:
        names = self.space.operators
        logits = np.zeros(len(names))
        logits[names.index(second)] = 1.0
        logits[names.index(first)] = 2.0
        return logits
