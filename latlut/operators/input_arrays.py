"""What a model's inputs are filled with: arrays given by name, or random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latlut.errors import SpecError
from latlut.operators.onnx_shapes import Shape, shown_inputs


def random_arrays(
    shapes: Sequence[Shape],
    types: Sequence[np.dtype],
    seed: int,
    below: Sequence[int | None] | None = None,
    maps: Sequence[bool] | None = None,
) -> list[np.ndarray]:
    """Random inputs.

    Floating-point ones are standard normal, bytes and booleans uniform over their range. Other
    whole numbers are uniform below a limit, and otherwise 0 or 1, which any use of them allows.

    Feature maps from within a network have a mean of each channel, standard normal, and half of
    that as deviation: neighbours mostly have one sign, as there. Where signs are random, a loop
    that branches on them mispredicts every other time: ONNX Runtime's PRelu takes four to six times
    as long.

    Args:
        shapes: one per input.
        types: likewise.
        seed: of the generator.
        below: the limit of each input's whole numbers, None where it is not known.
        maps: whether each is a feature map (B, C, H, W) from within a network; none if not given.
    """
    generator = np.random.default_rng(seed)
    found = []
    limits, are_maps = below or [None] * len(shapes), maps or [False] * len(shapes)
    for shape, dtype, limit, is_map in zip(shapes, types, limits, are_maps, strict=True):
        made: np.ndarray
        if dtype.kind == "f":
            made = generator.standard_normal(shape, dtype=np.float32)
            if is_map:
                sides = (1, shape[1], 1, 1)
                made = 0.5 * made + generator.standard_normal(sides, dtype=np.float32)
        elif dtype == np.uint8:
            made = generator.integers(0, 256, shape)
        elif dtype == np.int8:
            made = generator.integers(-128, 128, shape)
        else:
            end = 2 if dtype.kind == "b" or limit is None else max(1, limit)
            made = generator.integers(0, end, shape)
        found.append(np.asarray(made).astype(dtype))
    return found


def by_name(called: str, inputs: Sequence[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The same with every name that of an input; ``""`` stands for the only one.

    Raises:
        SpecError: no such input, or ``""`` where there are several.
    """
    names = [item.name for item in inputs]
    found = {}
    for name, value in given.items():
        if name == "" and len(names) > 1:
            raise SpecError(
                f"{called}: has several inputs, name the one meant: {shown_inputs(inputs)}"
            )
        if name and name not in names:
            raise SpecError(f"{called}: has no input {name!r}; it has {shown_inputs(inputs)}")
        found[name or names[0]] = value
    return found


def named_arrays(
    called: str, inputs: Sequence[Any], given: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Input -> its array, of all inputs or of none; names as of ``by_name``.

    Raises:
        SpecError: no such input, or some inputs have none.
    """
    arrays = by_name(called, inputs, given)
    missing = [item for item in inputs if arrays and item.name not in arrays]
    if missing:
        raise SpecError(
            f"{called}: nothing is given for {shown_inputs(missing)}: give all inputs or none"
        )
    return arrays


def arrays_of(
    called: str,
    inputs: Sequence[Any],
    shapes: Sequence[Shape],
    types: Sequence[str],
    arrays: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, ...]:
    """The given arrays, one per input; empty where none is given.

    Raises:
        SpecError: an array has another shape or type than its input.
    """
    if not arrays:
        return ()
    found = []
    for item, shape, wanted in zip(inputs, shapes, types, strict=True):
        array = np.asarray(arrays[item.name])
        if array.shape != shape:
            raise SpecError(
                f"{called}: {item.name!r} is given as {array.shape}, --shape says {shape}"
            )
        if array.dtype != np.dtype(wanted):
            raise SpecError(
                f"{called}: the input {item.name!r} is {wanted}, the array given for it "
                f"{array.dtype}: convert it, array.astype({wanted!r})"
            )
        found.append(array)
    return tuple(found)
