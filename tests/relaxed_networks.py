"""The way back: logits from which ``derive`` reads a given network.

To check that files of logits are read rightly. A network with
fewer cells than the space has layers gets skips in between. Not every network can be derived: both
branches read the same logits wherever their paths meet, so that for instance under "path" a
1/16 branch goes down where the 1/32 branch does, or not before that one has almost left 1/16.

Symbols: L layers; a branch's fates say per layer which of its cells is there, None for a skip.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

import torch

from latlut.errors import SpecError
from latlut.search.derive.derive import Decoding, derive
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.spaces import Architecture, Branch, FasterSegSpace
from latlut.spaces.topology import Place, path_places

#: For the branches in order: the layers of the down cells, and the fate of every layer.
Fates = tuple[int | None, ...]
Layout = tuple[tuple[tuple[int, ...], Fates], ...]


def relaxed_from(
    architecture: Architecture,
    space: FasterSegSpace,
    confidence: float = 4.0,
    decoding: Decoding = "corrected",
    allow_skip: bool = True,
) -> RelaxedArchitecture:
    """Logits that derive the architecture, found by trying the places that its cells can have.

    Args:
        space: of at least as many layers as a branch has cells.
        confidence: logit of a chosen operator and width above the others'; a position's is up to
            four times that.
        decoding, allow_skip: with which ``derive`` gives the architecture back.

    Raises:
        SpecError: a network of another space (base width, classes, a width, an operator), one
            with different widths of stem and head, or one that no logits of this space derive.
    """
    _check_fit(architecture, space)
    scales = tuple(branch.scale for branch in architecture.branches)
    for layout in _layouts(architecture.branches, space, ends_early=decoding == "released"):
        relaxed = _relaxed(architecture, space, layout, confidence, decoding)
        if derive(relaxed, scales, decoding, allow_skip) == architecture:
            return relaxed
    depths = ", ".join(str(len(branch.cells)) for branch in architecture.branches)
    raise SpecError(
        f'no logits of {space.layers} layers give this network by the decoding "{decoding}": '
        f"its branches at {scales} have {depths} cells"
    )


def _check_fit(architecture: Architecture, space: FasterSegSpace) -> None:
    for name in ("base_width", "num_classes"):
        if getattr(architecture, name) != getattr(space, name):
            raise SpecError(
                f"the space has {name} {getattr(space, name)}, "
                f"the network {getattr(architecture, name)}"
            )
    if architecture.stem_width != architecture.head_width:
        raise SpecError(
            "a relaxed architecture has one width for stem and head, the network "
            f"{architecture.stem_width} and {architecture.head_width}"
        )
    for branch in architecture.branches:
        if len(branch.cells) > space.layers:
            raise SpecError(
                f"the 1/{branch.scale} branch has {len(branch.cells)} cells, "
                f"the space {space.layers} layers"
            )
        for cell in branch.cells[:-1]:
            if cell.width not in space.widths:
                raise SpecError(f"the space has widths {space.widths}, a cell {cell.width}")
        for cell in branch.cells:
            if cell.operator not in space.operators:
                raise SpecError(f"the space has no operator {cell.operator!r}")


def _layouts(
    branches: tuple[Branch, ...], space: FasterSegSpace, ends_early: bool
) -> Iterator[Layout]:
    """For every choice of positions one way to place the branches' cells, where there is one.

    ``ends_early``: a skip can stand in the last layer, too.
    """
    for paths in product(*(space.positions(branch.scale) for branch in branches)):
        fates = _placed(branches, paths, space.layers, ends_early)
        if fates is not None:
            yield tuple(zip(paths, fates, strict=True))


def _placed(
    branches: tuple[Branch, ...], paths: tuple[tuple[int, ...], ...], layers: int, ends_early: bool
) -> tuple[Fates, ...] | None:
    """Fates of all layers such that branches agree wherever they read the same logits."""
    places = [path_places(layers, downs) for downs in paths]

    @cache
    def place_from(layer: int, taken: tuple[int, ...]) -> tuple[tuple[int | None, ...], ...] | None:
        """Fates of the layers from ``layer`` on, one tuple over the branches per layer."""
        if layer == layers:
            is_whole = all(n == len(b.cells) for n, b in zip(taken, branches, strict=True))
            return () if is_whole else None
        options = [
            _fates_here(branch, layer in downs, count, layers - layer, ends_early)
            for branch, downs, count in zip(branches, paths, taken, strict=True)
        ]
        for fates in product(*options):
            if not _agree(branches, places, layer, fates):
                continue
            after = tuple(
                count + (fate is not None) for count, fate in zip(taken, fates, strict=True)
            )
            rest = place_from(layer + 1, after)
            if rest is not None:
                return (fates, *rest)
        return None

    found = place_from(0, (0,) * len(branches))
    return None if found is None else tuple(zip(*found, strict=True))


def _fates_here(
    branch: Branch, is_down: bool, taken: int, layers_left: int, ends_early: bool
) -> tuple[int | None, ...]:
    """The branch's next cell, a skip, or either; nothing where neither can stand here."""
    fates: list[int | None] = []
    cells = branch.cells
    is_next = taken < len(cells) and cells[taken].is_down == is_down
    is_last = taken == len(cells) - 1
    if is_next and (is_last == (layers_left == 1) or (is_last and ends_early)):
        fates.append(taken)
    # A stretch of skips alone would have one of them replaced.
    is_stretch_empty = (
        taken < len(cells) and cells[taken].is_down and (not taken or cells[taken - 1].is_down)
    )
    if not is_down and not is_stretch_empty and (ends_early or layers_left > 1):
        fates.append(None)
    return tuple(fates)


def _agree(
    branches: tuple[Branch, ...],
    places: list[tuple[Place, ...]],
    layer: int,
    fates: tuple[int | None, ...],
) -> bool:
    """Whether branches in one cell have one operator, and maps into one cell one width.

    Where one branch has a skip another can have a down cell: that is the skip of stride 2 which
    became the next best operator.
    """
    operators: dict[Place, str] = {}
    skipped = set()
    kept = set()
    widths: dict[Place, int] = {}
    for branch, path, fate in zip(branches, places, fates, strict=True):
        if fate is None:
            skipped.add(path[layer])
            continue
        cell = branch.cells[fate]
        if operators.setdefault(path[layer], cell.operator) != cell.operator:
            return False
        if not cell.is_down:
            kept.add(path[layer])
        is_last = fate == len(branch.cells) - 1
        if not is_last and widths.setdefault(path[layer + 1], cell.width) != cell.width:
            return False
    return not skipped & kept


def _relaxed(
    architecture: Architecture,
    space: FasterSegSpace,
    layout: Layout,
    confidence: float,
    decoding: Decoding,
) -> RelaxedArchitecture:
    relaxed = RelaxedArchitecture(space, end_width=architecture.head_width)
    cells = space.cells()
    operators = dict.fromkeys(cells, space.candidates[0])
    skipped: set[Place] = set()
    widths: dict[Place, int] = {}
    finer: dict[Place, float] = {}
    for branch, (downs, fates) in zip(architecture.branches, layout, strict=True):
        path = path_places(space.layers, downs)
        for layer, fate in enumerate(fates):
            if fate is None:
                skipped.add(path[layer])
            else:
                operators[path[layer]] = branch.cells[fate].operator
            if fate is not None and fate < len(branch.cells) - 1:
                widths[path[layer + 1]] = branch.cells[fate].width
        for index, down in enumerate(downs):
            # The published rule reads the 1/16 branch's position one layer early.
            late = 1 if decoding == "released" and branch.scale == 16 else 0
            place = down + 1 + late, 16 * 2**index
            # The 1/16 branch's own position outweighs that of the 1/32 branch, which is the
            # second best; the 1/32 cell outweighs both.
            strength = 4.0 if place[1] == 32 else (2.0 if branch.scale == 16 else 1.0)
            finer[place] = max(finer.get(place, 0.0), strength * confidence)
    with torch.no_grad():
        for logits in relaxed.parameters():
            logits.zero_()
        for row, place in enumerate(cells):
            relaxed.alpha[row, space.operators.index(operators[place])] = confidence
            if place in skipped:
                relaxed.alpha[row, space.operators.index("skip")] = 2 * confidence
            if place in widths:
                relaxed.gamma[row - 1, space.widths.index(widths[place])] = confidence
        for row, number in enumerate(relaxed.two_way):
            place = cells[number]
            rest = -confidence * (4 if place[1] == 32 else 1)
            relaxed.beta[row, 0] = finer.get(place, rest)
    return relaxed
