"""freeze: cut a plain network with the supernet's weights out of the supernet.

A derived network is an ``Architecture``; ``freeze`` builds it as ``operators.Network`` and
copies the slices of the superkernels and the norms of the widths in it. In evaluation mode the
frozen network computes what the supernet does under the one-hot mixing that ``one_hot`` makes of
the same architecture. A supernet cell that two branches use with different next cells is copied
into both.

An architecture has no stride-1 skips, as they turn into identities, whereas the supernet searches
them as 1x1 convolutions. So a branch may have fewer cells than the supernet has layers, and which
layer each of its cells comes from must then be said (``layers``); such a network is no exact copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from latlut.errors import SpecError
from latlut.operators.modules import ConvNorm, Head, Refine, ZoomedConv
from latlut.operators.network import Network
from latlut.search.supernet.ends import Ends, SlicedRefine, output_name
from latlut.search.supernet.mixing import Mixing
from latlut.search.supernet.superkernel import ConvPair, MixedOperator, SlicedConvNorm, Superkernel
from latlut.search.supernet.supernet import SuperCell, Supernet
from latlut.spaces import Architecture, Branch, FasterSegSpace
from latlut.spaces.topology import is_two_way

#: Branch scale -> layer of each of its cells, increasing.
Layers = Mapping[int, Sequence[int]]


def one_hot(
    space: FasterSegSpace, architecture: Architecture, layers: Layers | None = None
) -> tuple[Mixing, tuple[int, ...]]:
    """The mixing and widths under which the supernet computes one architecture.

    Cells and maps that no branch uses have weight 0 and the space's narrowest width; their
    beta is 0, that of a cell which has one input excepted.

    Args:
        space: the supernet's.
        architecture: without skips every branch has as many cells as the supernet has layers.
        layers: see ``freeze``; cells in between would be skips, so all layers must be there.

    Returns:
        alpha (N, K) and beta (N,) float32 of zeros and ones, and N - 1 widths in twelfths.

    Raises:
        SpecError: branches that the supernet cannot hold at once, as they ask for two operators of
            one cell, two widths of one map or two sources of one cell; cells missing; an operator
            or width that the space does not have.
    """
    cells = space.cells()
    rows = {cell: row for row, cell in enumerate(cells)}
    choices: dict[str, dict[tuple[int, int], object]] = {"operator": {}, "width": {}, "source": {}}

    def choose(what: str, cell: tuple[int, int], value: object) -> None:
        if choices[what].setdefault(cell, value) != value:
            raise SpecError(
                f"two branches need {choices[what][cell]} and {value} as the {what} of the cell in "
                f"layer {cell[0]} at 1/{cell[1]}: no one-hot supernet computes both"
            )

    for branch in architecture.branches:
        if tuple(_layers(space, branch, layers)) != tuple(range(space.layers)):
            raise SpecError(
                f"the 1/{branch.scale} branch has {len(branch.cells)} cells, the supernet "
                f"{space.layers} layers: skips that were left out are no part of a one-hot supernet"
            )
        scale = 8
        for layer, (cell, next_scale) in enumerate(
            zip(branch.cells, branch.output_scales(), strict=True)
        ):
            choose("operator", (layer, scale), cell.operator)
            if layer < space.layers - 1:
                choose("width", (layer + 1, next_scale), cell.width)
                choose("source", (layer + 1, next_scale), "finer" if cell.is_down else "same scale")
            scale = next_scale
    alpha = torch.zeros(len(cells), len(space.operators))
    for place, operator in choices["operator"].items():
        if operator not in space.operators:
            raise SpecError(f"the space has operators {space.operators}, received {operator}")
        alpha[rows[place], space.operators.index(str(operator))] = 1.0
    beta = torch.tensor(
        [
            float(
                choices["source"].get(place) == "finer" or (place[1] > 8 and not is_two_way(*place))
            )
            for place in cells
        ]
    )
    narrowest = space.widths[0]
    widths = tuple(int(str(choices["width"].get(place, narrowest))) for place in cells[1:])
    if unknown := set(widths) - set(space.widths):
        raise SpecError(f"the space has widths {space.widths}, received {min(unknown)}")
    return Mixing(alpha, beta), widths


def freeze(
    supernet: Supernet,
    architecture: Architecture,
    end_width: int,
    input_size: tuple[int, int] = (1024, 2048),
    layers: Layers | None = None,
) -> Network:
    """The architecture as a plain network with copies of the supernet's weights, in eval mode.

    Args:
        supernet: where weights and norms come from; left as it is.
        architecture: what to cut out.
        end_width: twelfths; stem and head of the architecture have this width.
        input_size: (height, width) to which the network enlarges its logits.
        layers: for each branch's scale the supernet layer of each of its cells; needed where a
            branch has fewer cells than the supernet has layers.

    Returns:
        image (B, 3, H, W) -> logits (B, classes, *input_size).

    Raises:
        SpecError: an architecture of another space, end width or set of branches than the
            supernet has, or layers that do not fit it.
    """
    space = supernet.space
    ends = supernet.ends_of(end_width)
    for what, found, expected in (
        ("stem width", architecture.stem_width, end_width),
        ("head width", architecture.head_width, end_width),
        ("base width", architecture.base_width, space.base_width),
        ("number of classes", architecture.num_classes, space.num_classes),
    ):
        if found != expected:
            raise SpecError(f"the architecture's {what} is {found}, expected {expected}")
    output = tuple(branch.scale for branch in architecture.branches)
    if output not in supernet.outputs:
        raise SpecError(f"the supernet has outputs {supernet.outputs}, received {output}")
    sources = {
        f"{owner}.cell.{index}": (layer, scale, cell.operator, cell.is_down)
        for branch in architecture.branches
        for owner in ("shared", f"branch{branch.scale}")
        for index, (cell, layer, scale) in enumerate(
            zip(branch.cells, _layers(space, branch, layers), _input_scales(branch), strict=True)
        )
    }
    rows = {cell: row for row, cell in enumerate(supernet.cells)}
    network = Network(architecture.nodes(input_size))
    with torch.no_grad():
        for node, plain in zip(network.nodes, network.operators, strict=True):
            if node.name in sources:
                layer, scale, operator, is_down = sources[node.name]
                if operator not in space.operators:
                    raise SpecError(
                        f"the space has operators {space.operators}, received {operator}"
                    )
                cell = supernet.super_cells[rows[layer, scale]]
                assert isinstance(cell, SuperCell)
                _copy_operator(cell.direction(is_down), operator, plain)
            else:
                _copy_end(ends, node.name, output, plain)
    return network.eval()


def _layers(space: FasterSegSpace, branch: Branch, layers: Layers | None) -> Sequence[int]:
    """The supernet layer of each cell of a branch."""
    count = len(branch.cells)
    found = tuple(layers[branch.scale]) if layers and branch.scale in layers else None
    if found is None:
        if count != space.layers:
            raise SpecError(
                f"the 1/{branch.scale} branch has {count} cells and the supernet {space.layers} "
                "layers: say with layers={scale: [...]} which layer each cell comes from"
            )
        return tuple(range(count))
    if len(found) != count or list(found) != sorted(set(found) & set(range(space.layers))):
        raise SpecError(
            f"the 1/{branch.scale} branch needs {count} increasing layers below {space.layers}, "
            f"received {found}"
        )
    return found


def _input_scales(branch: Branch) -> tuple[int, ...]:
    return (8, *branch.output_scales()[:-1])


def _copy_kernel(kernel: Superkernel, conv: nn.Conv2d, only: int | None = None) -> None:
    conv.weight.copy_(kernel.sliced(conv.out_channels, conv.in_channels, only))


def _copy_norm(norm: nn.BatchNorm2d, plain: nn.BatchNorm2d, part: int = 0) -> None:
    """Copy the norm, or the part of it that belongs to one of several stacked kernels."""
    count = plain.num_features
    plain.load_state_dict(
        {
            name: tensor if tensor.ndim == 0 else tensor[part * count : (part + 1) * count]
            for name, tensor in norm.state_dict().items()
        }
    )


def _copy_conv_norm(source: SlicedConvNorm, plain: nn.Module, only: int | None = None) -> None:
    assert isinstance(plain, ConvNorm)
    _copy_kernel(source.conv, plain.conv, only)
    _copy_norm(source.norm.of_width(plain.conv.out_channels), plain.norm, only or 0)


def _copy_operator(mixed: MixedOperator, operator: str, plain: nn.Module) -> None:
    """Copy any operator but skip, which no architecture has."""
    pair: ConvPair = mixed.zoomed if operator.startswith("zoomed") else mixed.direct
    inner = plain.convolutions if isinstance(plain, ZoomedConv) else plain
    steps = list(inner) if isinstance(inner, nn.Sequential) else [inner]
    is_double = len(steps) == 2
    _copy_conv_norm(pair.first, steps[0], pair.part(is_double))
    if is_double:
        _copy_conv_norm(pair.second, steps[1])


def _copy_end(ends: Ends, name: str, output: tuple[int, ...], plain: nn.Module) -> None:
    """Copy stem, refinement, fusion or head; the upsampling at the end has no weights."""
    kind, *rest = name.split(".")
    if kind == "stem":
        plain.load_state_dict(ends.stem[int(rest[0])].state_dict())
    elif kind.startswith("branch"):
        scale = rest[-1].removeprefix("s")
        refinement = ends.refinements[f"{kind.removeprefix('branch')}_{scale}"]
        assert isinstance(plain, Refine) and isinstance(refinement, SlicedRefine)
        plain.reduce.load_state_dict(refinement.reduce.state_dict())
        _copy_kernel(refinement.merge, plain.merge.conv)
        _copy_norm(refinement.norm, plain.merge.norm)
    elif kind == "fusion":
        plain.load_state_dict(ends.fusions[output_name(output)].state_dict())
    elif kind == "head":
        assert isinstance(plain, Head)
        plain.load_state_dict(ends.heads[output_name(output)].state_dict())
