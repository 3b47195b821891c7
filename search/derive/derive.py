"""From the continuous parameters of a search to one discrete network, and to the best of several.

Operators and widths are the argmax of alpha and gamma, downsampling positions the most probable
path under beta. Stride-1 skips drop out and make the network shallower; a skip that has to stay
becomes the next best operator, so that no derived network contains a skip. Which cells two
branches share follows from the ``Architecture`` alone.

Every choice is deterministic. Of equally good operators the first in ``space.operators`` is taken,
of widths the first in ``relaxed.widths`` (the narrowest), of positions the earliest (compared in
the order of their layers), and of equally probable skips the one of the earlier layer drops out.

Symbols: L layers; a path is given by the layers of its down cells.

Source: FasterSeg, Sec. 3.4 and the authors' code, of which ``released`` keeps the quirks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from latlut.errors import SpecError
from latlut.search.derive.choices import Choices, Floats, choices_of, least_gap, minimum_depth
from latlut.search.derive.released import released_branches
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.spaces import Architecture, Branch, FasterSegSpace
from latlut.spaces.topology import Place, is_two_way, path_places

#: How positions (and, in "released", skips) are read; ``derive`` says what each means.
Decoding = Literal["corrected", "path", "released"]
DECODINGS: tuple[Decoding, ...] = get_args(Decoding)

#: The exponent of the paper's Target(m).
TARGET_EXPONENT = -0.07


def derive(
    relaxed: RelaxedArchitecture,
    scales: tuple[int, ...],
    decoding: Decoding = "corrected",
    allow_skip: bool = True,
) -> Architecture:
    """The discrete network with branches at ``scales`` that a relaxed architecture stands for.

    Positions of the downsamplings, by ``decoding``:

    - "corrected": the position of largest beta, as the paper has it: argmax over l of the beta
      with which a cell reads the down cell of layer l; for two positions the argmax of the
      product.
    - "path": the path of largest probability under beta, traced from the last layer back:
      P(path) is the product over its cells of beta for the input that it takes. This is the
      distribution that the expected latency is taken over; while beta is nearly uniform it goes
      down late, because a path that stays at 1/8 has fewer inputs to choose.
    - "released": as the authors' code decodes their published files, defects included.

    The positions of a 1/32 branch are at least ``least_gap`` layers apart.

    Stride-1 skips drop out, those of highest alpha first, while a branch keeps its
    ``minimum_depth``. The last layer's cell stays (it gives the branch the
    head's width), and of a stretch of skips before a downsampling the one of lowest alpha stays.
    What two branches walk together is decided together: a skip that one of them keeps there stays
    in both, so that the cell is shared.

    Args:
        scales: where the branches end, one of ``relaxed.space.branch_scales()`` in any order.
        allow_skip: False passes over skip altogether, as for a teacher: every layer has a cell.

    Raises:
        SpecError: other scales, an unknown decoding, a logit that is not finite, or "released"
            with fewer than 5 layers.

    Source: FasterSeg, Sec. 3.4.
    """
    space = relaxed.space
    wanted = tuple(sorted(scales))
    if wanted not in space.branch_scales():
        known = ", ".join(map(str, space.branch_scales()))
        raise SpecError(f"branches of this space end at one of {known}, received {scales}")
    if decoding not in DECODINGS:
        raise SpecError(f"the decoding is one of {', '.join(DECODINGS)}, received {decoding!r}")
    choices = choices_of(relaxed)
    if decoding == "released":
        decoded = released_branches(choices, allow_skip)
        return _network(choices, {scale: decoded[scale] for scale in wanted})
    downs = {scale: best_positions(choices, scale, decoding) for scale in wanted}
    return derive_from(choices, downs, allow_skip).architecture


def derive_placed(
    relaxed: RelaxedArchitecture, scales: tuple[int, ...], allow_skip: bool = True
) -> Placed:
    """As ``derive``, "corrected", with where the network lies in the supernet."""
    choices = choices_of(relaxed)
    downs = {scale: best_positions(choices, scale, "corrected") for scale in sorted(scales)}
    return derive_from(choices, downs, allow_skip)


@dataclass(frozen=True)
class Placed:
    """A derived network and where it lies in the supernet: what its inherited weights are."""

    architecture: Architecture
    layers: tuple[tuple[int, ...], ...]
    """Per branch, in the order of their scales, the supernet layer of each of its cells."""


def derive_from(
    choices: Choices,
    downs: Mapping[int, tuple[int, ...]],
    allow_skip: bool = True,
    keep_depth: bool = True,
) -> Placed:
    """The network of choices whose branches downsample in given layers; skips as in ``derive``.

    Args:
        downs: scale of each branch -> the layers of its down cells.
        keep_depth: False drops skips below ``minimum_depth`` too.
    """
    kept = _kept_operators(choices, downs, allow_skip, keep_depth)
    found = {scale: (downs[scale], kept[scale]) for scale in sorted(downs)}
    layers = tuple(tuple(sorted(kept[scale])) for scale in sorted(downs))
    return Placed(_network(choices, found), layers)


def _network(
    choices: Choices, decoded: Mapping[int, tuple[tuple[int, ...], Mapping[int, str]]]
) -> Architecture:
    branches = tuple(
        Branch(scale, choices.branch_cells(*found)) for scale, found in decoded.items()
    )
    end, space = choices.end_width, choices.space
    return Architecture(end, end, branches, space.base_width, space.num_classes)


def target_score(
    accuracy: float, latency_ms: float, target_ms: float, exponent: float = TARGET_EXPONENT
) -> float:
    """Target(m) = ACC(m) * (LAT(m) / T)^exponent; the larger the better.

    Args:
        accuracy: mIoU or another score, fraction or percent.
        latency_ms, target_ms: milliseconds.
        exponent: the same on both sides of the target, as in the paper.

    Raises:
        SpecError: a negative accuracy, a latency or target that is not positive, or one of them
            that is not finite.

    Source: FasterSeg, Sec. 3.4, after MnasNet.
    """
    if not (math.isfinite(accuracy) and accuracy >= 0):
        raise SpecError(f"an accuracy is finite and not negative, received {accuracy}")
    for name, value in (("latency_ms", latency_ms), ("target_ms", target_ms)):
        if not (math.isfinite(value) and value > 0):
            raise SpecError(f"{name} is finite and positive, received {value}")
    return accuracy * (latency_ms / target_ms) ** exponent


@dataclass(frozen=True)
class Candidate:
    """A derived network with the accuracy and the latency by which it is chosen."""

    architecture: Architecture
    accuracy: float
    latency_ms: float


def select(
    scored: Sequence[Candidate], target_ms: float, exponent: float = TARGET_EXPONENT
) -> Candidate:
    """The candidate of largest Target(m); of equal ones the first.

    Raises:
        SpecError: no candidates, or values that ``target_score`` refuses.
    """
    if not scored:
        raise SpecError("there is no candidate to select from")
    return max(
        scored, key=lambda item: target_score(item.accuracy, item.latency_ms, target_ms, exponent)
    )


def path_log_probability(choices: Choices, downs: tuple[int, ...]) -> float:
    """log P(path): of tracing back from the branch's last cell along beta, natural logarithm.

        P = product over the path's cells with two inputs of beta for the input that it takes

    Over all positions of one scale the probabilities sum to 1.
    """
    path = path_places(choices.space.layers, downs)
    return sum(
        _log_beta(choices, path[layer])[0 if layer - 1 in downs else 1]
        for layer in range(1, choices.space.layers)
        if path[layer] in choices.beta
    )


def position_log_score(choices: Choices, downs: tuple[int, ...]) -> float:
    """Sum of log beta with which the receiving cells read the down cells, natural logarithm.

    The first cell of a coarser scale has no other input: its beta is 1 in any case.
    """
    receiving = ((down + 1, 16 * 2**index) for index, down in enumerate(downs))
    return sum(_log_beta(choices, place)[0] for place in receiving if place in choices.beta)


def compared_positions(space: FasterSegSpace, scale: int) -> tuple[tuple[int, ...], ...]:
    """The positions among which "corrected" takes the largest beta: those whose receiving cells
    have a choice between two inputs, far enough apart; the only one there is in three layers."""
    positions = space.positions(scale)
    chosen = [
        downs
        for downs in positions
        if all(is_two_way(down + 1, 16 * 2**index) for index, down in enumerate(downs))
    ]
    return far_apart(chosen, space.layers) if chosen else positions[:1]


def best_positions(choices: Choices, scale: int, decoding: Decoding) -> tuple[int, ...]:
    """The layers in which a branch down to 1/scale downsamples, "corrected" or by "path"."""
    if decoding == "path":
        positions = far_apart(choices.space.positions(scale), choices.space.layers)
        return max(positions, key=lambda downs: path_log_probability(choices, downs))
    return max(
        compared_positions(choices.space, scale),
        key=lambda downs: position_log_score(choices, downs),
    )


def far_apart(positions: Sequence[tuple[int, ...]], layers: int) -> tuple[tuple[int, ...], ...]:
    """Those whose downsamplings are ``least_gap`` apart, or as far as any of them are."""
    least = least_gap(layers)
    gaps = [downs[-1] - downs[0] if len(downs) > 1 else least for downs in positions]
    least = min(least, max(gaps))
    return tuple(downs for downs, gap in zip(positions, gaps, strict=True) if gap >= least)


def _log_beta(choices: Choices, place: Place) -> Floats:
    """log softmax of beta, (2,): from the finer scale, from the same."""
    logits = choices.beta[place]
    log_softmax: Floats = logits - np.logaddexp(logits[0], logits[1])
    return log_softmax


def _kept_operators(
    choices: Choices, downs: Mapping[int, tuple[int, ...]], allow_skip: bool, keep_depth: bool
) -> dict[int, dict[int, str]]:
    """Per branch the operator of every layer that stays.

    Repeats until the branches agree on the cells that they walk together. A cell that stays is
    never given up again, so that this ends.
    """
    layers = choices.space.layers
    together = _walked_together(choices.space, tuple(downs.values()))
    staying: set[Place] = set()
    while True:
        dropped = {
            scale: _dropped(choices, scale, path, staying, keep_depth)
            if allow_skip
            else frozenset()
            for scale, path in downs.items()
        }
        disputed = together & frozenset.union(*dropped.values()).difference(
            frozenset.intersection(*dropped.values())
        )
        if not disputed:
            break
        staying |= disputed
    return {
        scale: {
            layer: choices.operator(place, with_skip=False)
            for layer, place in enumerate(path_places(layers, path))
            if place not in dropped[scale]
        }
        for scale, path in downs.items()
    }


def _walked_together(space: FasterSegSpace, paths: tuple[tuple[int, ...], ...]) -> set[Place]:
    """The cells that all branches walk before the first layer in which one goes another way."""
    if len(paths) < 2:
        return set()
    parting = next(
        layer for layer in range(space.layers) if len({layer in downs for downs in paths}) > 1
    )
    return set(path_places(space.layers, paths[0])[:parting])


def _dropped(
    choices: Choices,
    scale: int,
    downs: tuple[int, ...],
    staying: set[Place],
    keep_depth: bool,
) -> frozenset[Place]:
    """The cells of one branch that drop out: skips of stride 1, by the rules of ``derive``."""
    layers = choices.space.layers
    path = path_places(layers, downs)

    def order(place: Place) -> tuple[float, int]:
        return -choices.skip_probability(place), place[0]

    free = {
        place
        for place in path[:-1]
        if place[0] not in downs
        and place not in staying
        and choices.operator(place, with_skip=True) == "skip"
    }
    for start, stop in zip((0, *(down + 1 for down in downs)), downs, strict=False):
        stretch = path[start:stop]
        if stretch and free.issuperset(stretch):
            free.remove(max(stretch, key=order))
    most = layers - minimum_depth(layers, scale) if keep_depth else layers
    return frozenset(sorted(free, key=order)[:most])
