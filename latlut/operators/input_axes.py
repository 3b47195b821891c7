"""Which axis of an input is the batch, the channels, the height and the width of an image.

ONNX does not say it. It is told from what the file does say, in this order:

1. names of open sides: ``batch``, ``n``, ``height``, ``w``, ...;
2. what the graph does first with the input: a convolution takes (B, C, ...), a transposition by
   (0, 3, 1, 2) makes that from (B, H, W, C), one by (2, 0, 1) from (H, W, C);
3. the shape: with four axes 1, 3 or 4 channels are the second or the last axis; with three and 1,
   3 or 4 channels last it is (H, W, C);
4. of two sides or more a first one is the batch that is 1, open without a name, or open under a
   name that stands for it (``n``) or that an exporter made up (``dynamic_axes_1``).

What none of it settles stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: A side as the file has it: a number, the name of an open side, or None for one without a name.
Side = int | str | None

_NAMES = {
    "batch": r"bsz|.*batch.*",
    "channels": r"c|ch|channels?|in_channels|num_channels",
    "height": r"h|.*height.*|rows|h_in|in_h|image_h",
    "width": r"w|.*width.*|cols|columns|w_in|in_w|image_w",
}
#: Names of an open first side that is the batch: a letter for it, or one that an exporter made up.
_FIRST_BATCH = re.compile(r"[nb]|bs|(.*_)?dynamic_axes_\d+|unk_*\d+|dim_?0|\?|none", re.IGNORECASE)
_IMAGE_CHANNELS = (1, 3, 4)
#: Nodes that keep the order of an input's axes.
_ELEMENTWISE = {
    "Add", "Sub", "Mul", "Div", "Cast", "Clip", "Identity", "QuantizeLinear", "DequantizeLinear",
    "Relu", "Pad", "BatchNormalization",
}  # fmt: skip
_CHANNELS_FIRST = {
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "BatchNormalization",
    "InstanceNormalization", "QLinearConv", "ConvInteger", "FusedConv", "DepthToSpace",
    "SpaceToDepth", "LpPool", "MaxRoiPool", "RoiAlign",
}  # fmt: skip
_IMAGE_ORDERS = {
    (0, 3, 1, 2): ("batch", "height", "width", "channels"),
    (2, 0, 1): ("height", "width", "channels"),
}


@dataclass(frozen=True)
class InputAxes:
    """The number of each axis of one input; None where there is none, or it is not known."""

    batch: int | None = None
    """Items that one run takes."""
    channels: int | None = None
    height: int | None = None
    width: int | None = None
    """``channels``, ``height``, ``width``: of an image."""

    @property
    def is_image(self) -> bool:
        """Whether height and width are known."""
        return self.height is not None and self.width is not None

    def image_size(self, shape: Sequence[int]) -> tuple[int, int] | None:
        """(height, width) of an input of this shape; None where it is no image."""
        if self.height is None or self.width is None:
            return None
        return shape[self.height], shape[self.width]


def find_axes(name: str, sides: Sequence[Side], nodes: Sequence[Any] = ()) -> InputAxes:
    """What is known of the axes of one input, by the rules above.

    Args:
        name: of the input.
        sides: its shape as the file has it.
        nodes: of the graph (``onnx.NodeProto``), to see what is done with the input first.
    """
    found: dict[str, int] = {}
    for axis, side in enumerate(sides):
        for what, pattern in _NAMES.items():
            if isinstance(side, str) and re.fullmatch(pattern, side, re.IGNORECASE):
                found.setdefault(what, axis)
    order = _order_by_nodes(name, len(sides), nodes) or _order_by_shape(sides)
    taken = set(found.values())
    for axis, what in enumerate(order):
        if what not in found and axis not in taken:
            found[what] = axis
    if "batch" not in found and 0 not in found.values() and _is_batch(sides):
        found["batch"] = 0
    return InputAxes(**found)


def common_batch(axes: Sequence[InputAxes], shapes: Sequence[Sequence[int]]) -> int | None:
    """Items that one run takes; None where no input says it, or they disagree."""
    known = {
        shape[item.batch]
        for item, shape in zip(axes, shapes, strict=True)
        if item.batch is not None
    }
    return known.pop() if len(known) == 1 else None


def common_image_size(
    axes: Sequence[InputAxes], shapes: Sequence[Sequence[int]]
) -> tuple[int, int] | None:
    """(height, width) of the image that a run takes; None where it takes none, or several sizes."""
    sizes = {item.image_size(shape) for item, shape in zip(axes, shapes, strict=True)}
    return sizes.pop() if len(sizes) == 1 else None


def _order_by_nodes(name: str, rank: int, nodes: Sequence[Any]) -> tuple[str, ...]:
    """The axes in order where the first nodes that use the input show them, else empty."""
    same = {name}
    for node in nodes:
        if not node.input or node.input[0] not in same:
            continue
        if node.op_type == "Transpose":
            (perm,) = [tuple(part.ints) for part in node.attribute if part.name == "perm"] or [()]
            return _IMAGE_ORDERS.get(perm, ())
        if node.domain in ("", "ai.onnx", "com.microsoft") and node.op_type in _CHANNELS_FIRST:
            return ("batch", "channels", "height", "width") if rank == 4 else ("batch", "channels")
        if node.op_type == "NhwcConv":
            return ("batch", "height", "width", "channels")
        if node.op_type in _ELEMENTWISE:
            same.update(node.output)
    return ()


def _order_by_shape(sides: Sequence[Side]) -> tuple[str, ...]:
    if len(sides) == 4:
        is_first, is_last = (sides[axis] in _IMAGE_CHANNELS for axis in (1, 3))
        if is_first and not (is_last and _is_small(sides[2])):
            return ("batch", "channels", "height", "width")
        if is_last and not is_first:
            return ("batch", "height", "width", "channels")
    if len(sides) == 3 and sides[2] in _IMAGE_CHANNELS and not any(map(_is_small, sides[:2])):
        return ("height", "width", "channels")
    return ()


def _is_small(side: Side) -> bool:
    """Whether a side may be a number of channels or a batch rather than a height or width."""
    return isinstance(side, int) and side <= max(_IMAGE_CHANNELS)


def _is_batch(sides: Sequence[Side]) -> bool:
    if len(sides) < 2:
        return False
    first = sides[0]
    if isinstance(first, str):
        return bool(_FIRST_BATCH.fullmatch(first))
    return first == 1 or first is None
