"""The shapes of a graph's inputs: what the file fixes, and what is asked for its open sides."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latlut.errors import SpecError
from latlut.operators.input_axes import InputAxes, Side
from latlut.opspec import MAX_ELEMENTS

#: Axes of an array that NumPy has.
_MAX_AXES = 64

Shape = tuple[int, ...]


def refuse_huge(shown: str, shape: Sequence[int]) -> None:
    """Refuse a map that engines would fill the memory with.

    Raises:
        SpecError: of more than ``MAX_ELEMENTS``; ``shown`` says what it is.
    """
    if (elements := np.prod(shape, dtype=np.float64)) > MAX_ELEMENTS:
        raise SpecError(
            f"{shown} is too large to be run: {elements:.3g} elements, {MAX_ELEMENTS} at most"
        )


def settle_shapes(
    called: str,
    inputs: Sequence[Any],
    axes: Sequence[InputAxes],
    asked: Mapping[str, Sequence[int]],
    input_size: tuple[int, int] | None,
    batch: int | None,
) -> tuple[tuple[Shape, ...], list[InputAxes]]:
    """Every input's shape and axes.

    Args:
        called: what messages call the model.
        inputs: of the graph (``onnx.ValueInfoProto``).
        axes: what is known of each.
        asked: input -> whole shape.
        input_size: (height, width) of the image, for inputs that ``asked`` does not name.
        batch: likewise; an open batch is 1 where it is not given.

    Raises:
        SpecError: a side that is open and not given, or fixed otherwise.
    """
    if input_size is not None:
        axes = _with_image(called, inputs, axes)
    found, left_open = [], []
    for item, known in zip(inputs, axes, strict=True):
        sides = sides_of(item)
        if len(sides) > _MAX_AXES:
            raise SpecError(
                f"{called}: the input {item.name!r} has {len(sides)} axes, latlut runs those of "
                f"{_MAX_AXES} at most"
            )
        shape: list[int | None] = [side if isinstance(side, int) else None for side in sides]
        wanted: dict[int, tuple[int, str]] = {}
        if item.name in asked:
            own = tuple(asked[item.name])
            if len(own) != len(sides):
                raise SpecError(
                    f"{called}: the input {shown_inputs([item])} has {len(sides)} axes, "
                    f"{'x'.join(map(str, own))} has {len(own)}"
                )
            wanted = {axis: (side, "--shape") for axis, side in enumerate(own)}
        else:
            if batch is not None:
                wanted[_batch_axis(called, item, known)] = (batch, "--batch")
            if input_size is not None and known.height is not None and known.width is not None:
                wanted[known.height] = (input_size[0], "--input")
                wanted[known.width] = (input_size[1], "--input")
        for axis, (side, option) in wanted.items():
            if shape[axis] not in (None, side):
                raise SpecError(
                    f"{called}: the input is fixed at {shown_inputs([item])}, {side} was asked "
                    f"for: leave {option} out, or export the model with that side open"
                )
            shape[axis] = side
        if known.batch is not None and shape[known.batch] is None:
            shape[known.batch] = 1
        settled = [side for side in shape if side is not None]
        if len(settled) != len(shape):
            left_open.append((item, known))
        refuse_huge(f"{called}: the input {shown_inputs([item])}", settled)
        found.append(tuple(settled))
    if left_open:
        raise SpecError(_open_message(called, left_open, len(inputs)))
    return tuple(found), list(axes)


def _batch_axis(called: str, item: Any, known: InputAxes) -> int:
    sides = sides_of(item)
    if known.batch is not None:
        return known.batch
    if sides and not isinstance(sides[0], int):
        return 0
    raise SpecError(
        f"{called}: nothing says which axis of the input {shown_inputs([item])} is the batch: "
        "leave --batch out"
    )


def _with_image(
    called: str, inputs: Sequence[Any], axes: Sequence[InputAxes]
) -> Sequence[InputAxes]:
    """The axes with the image's, where two open sides next to each other can be no others."""
    if any(item.is_image for item in axes):
        return axes
    sides = sides_of(inputs[0])
    free = [
        axis
        for axis, side in enumerate(sides)
        if not isinstance(side, int) and axis != axes[0].batch
    ]
    if len(inputs) > 1 or len(free) != 2 or free[1] != free[0] + 1:
        raise SpecError(
            f"{called}: an image size is for a model that takes images, this one has "
            f"{shown_inputs(inputs)}: leave --input out, or give whole shapes, "
            f"{_shape_option(inputs)}"
        )
    return [InputAxes(axes[0].batch, axes[0].channels, *free)]


def _open_message(called: str, left_open: Sequence[tuple[Any, InputAxes]], count: int) -> str:
    item, axes = left_open[0]
    what = f"{called}: the input {shown_inputs([item])} leaves its size open"
    open_axes = {axis for axis, side in enumerate(sides_of(item)) if not isinstance(side, int)}
    if count == 1 and axes.is_image and open_axes <= {axes.batch, axes.height, axes.width}:
        return f"{what}: name it, such as --input 1024x2048"
    items = [item for item, _ in left_open]
    if len(items) > 1:
        what = f"{called}: the inputs {shown_inputs(items)} leave their sizes open"
    return f"{what}: give the whole shape, such as {_shape_option(items)}"


def _shape_option(inputs: Sequence[Any]) -> str:
    """``--shape 'image:1x3x640x640'``, ready to be pasted."""
    texts = []
    for item in inputs:
        sides = [side if isinstance(side, int) else 1 if not axis else 64
                 for axis, side in enumerate(sides_of(item))]  # fmt: skip
        texts.append("--shape " + shlex.quote(f"{item.name}:{'x'.join(map(str, sides))}"))
    return " ".join(texts)


def shown_inputs(inputs: Sequence[Any]) -> str:
    """``in0 (batch, 3, ?, ?)``."""
    return ", ".join(
        f"{item.name} ({', '.join(str(side or '?') for side in sides_of(item))})" for item in inputs
    )


def sides_of(item: Any) -> list[Side]:
    """An input's shape; an open side is its name, or None where it has none."""
    dims = item.type.tensor_type.shape.dim
    return [dim.dim_value if dim.dim_value > 0 else (dim.dim_param or None) for dim in dims]


def write_shapes(model: Any, inputs: Sequence[Any], shapes: Sequence[Shape]) -> None:
    """Fix the inputs' shapes, and in the rest of the graph the sides that have the same names."""
    values: dict[str, set[int]] = {}
    for item, shape in zip(inputs, shapes, strict=True):
        for dim, side in zip(item.type.tensor_type.shape.dim, shape, strict=True):
            if dim.dim_param:
                values.setdefault(dim.dim_param, set()).add(side)
            dim.dim_value = side
    for item in [*model.graph.output, *model.graph.value_info]:
        for dim in item.type.tensor_type.shape.dim:
            known = values.get(dim.dim_param, set())
            if len(known) == 1:
                dim.dim_value = next(iter(known))
