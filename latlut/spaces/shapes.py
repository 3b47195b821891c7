"""Shapes of a FasterSeg network's parts, each written once: maps, stem, refinements, ends.

Symbols: F base width; a width is a number of twelfths, so that a map at 1/s has F * s * width / 12
channels (the paper's "expansion ratio"); H, W the sides of the image in pixels.

Source: FasterSeg, Sec. 3.1, 3.4 and Appendix A; stem, refinement and head follow the authors' code.
"""

from __future__ import annotations

from typing import TypeAlias

from latlut.errors import SpecError
from latlut.opspec import OpSpec

#: Downsample rates at which a branch can end.
SCALES = (8, 16, 32)
#: Widths are twelfths of the full number of channels.
FULL_WIDTH = 12

#: (C, H, W) of a map.
Shape: TypeAlias = tuple[int, int, int]


def whole_number(name: str, value: object, low: int, high: int) -> int:
    """``value`` as an int between ``low`` and ``high``, both included.

    Raises:
        SpecError: it is not a whole number (a bool is none) or out of range.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise SpecError(f"{name} must be a whole number, received {value!r}")
    number = int(value)
    if not low <= number <= high:
        raise SpecError(f"{name} must be between {low} and {high}, received {number}")
    return number


def image_size(value: object) -> tuple[int, int]:
    """(height, width) in pixels, checked.

    Raises:
        SpecError: it is not two whole numbers between 1 and 65536.
    """
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise SpecError(f"an image size is (height, width), received {value!r}")
    return whole_number("height", value[0], 1, 1 << 16), whole_number("width", value[1], 1, 1 << 16)


def channels(base_width: int, scale: int, width: int) -> int:
    """Channels of a map at 1/scale: F * scale * width / 12.

    Raises:
        SpecError: that is not a whole number.
    """
    twelfths = base_width * scale * width
    if twelfths % FULL_WIDTH:
        raise SpecError(
            f"width {width}/12 of base width {base_width} at 1/{scale} is "
            f"{twelfths}/12 channels, which is not a whole number"
        )
    return twelfths // FULL_WIDTH


def map_shape(base_width: int, scale: int, width: int, input_size: tuple[int, int]) -> Shape:
    """(C, H, W) of a map at 1/scale; sides that do not divide are rounded up.

    Raises:
        SpecError: channels that are not whole, a size out of range.
    """
    height, image_width = image_size(input_size)
    return channels(base_width, scale, width), -(-height // scale), -(-image_width // scale)


def stem_specs(
    base_width: int, stem_width: int, input_size: tuple[int, int], batch: int = 1
) -> tuple[OpSpec, OpSpec, OpSpec]:
    """The stem's three op specs: image -> 4F at 1/2 -> 8F at 1/4 -> 8F at 1/8 (times width / 12).

    Raises:
        SpecError: channels that are not whole, a size or batch out of range.
    """
    half = channels(base_width, 4, stem_width)
    full = channels(base_width, 8, stem_width)
    first = OpSpec("conv", (3, *image_size(input_size)), half, stride=2, batch=batch)
    second = OpSpec("conv_2x", first.output, full, stride=2, batch=batch)
    return first, second, OpSpec("conv_2x", second.output, full, stride=2, batch=batch)


def refine_spec(
    base_width: int,
    scale: int,
    end_width: int,
    fine_width: int,
    input_size: tuple[int, int],
    batch: int = 1,
) -> OpSpec:
    """The refinement from 1/(2 scale) up to 1/scale, where it meets a map of ``fine_width``.

    Args:
        scale: of its output, 8 or 16.
        end_width: of the coarse map and of the output, twelfths.
        fine_width: of the finer map, twelfths.

    Raises:
        SpecError: channels that are not whole, a size or batch out of range.
    """
    coarse = map_shape(base_width, 2 * scale, end_width, input_size)
    fine = map_shape(base_width, scale, fine_width, input_size)
    out_channels = channels(base_width, scale, end_width)
    return OpSpec("refine", (coarse, fine), out_channels, batch=batch)


def end_specs(
    base_width: int,
    end_width: int,
    branches: int,
    num_classes: int,
    input_size: tuple[int, int],
    batch: int = 1,
) -> tuple[OpSpec, OpSpec, OpSpec]:
    """What follows the branches: their fusion at 1/8, the head, the upsampling of the logits.

    Raises:
        SpecError: channels that are not whole, a size, batch or number of classes out of range.
    """
    branch = map_shape(base_width, 8, end_width, input_size)
    fusion = OpSpec("fusion", (branch,) * branches, branches * branch[0], batch=batch)
    head = OpSpec("head", fusion.output, num_classes, batch=batch)
    out_size = image_size(input_size)
    upsample = OpSpec("upsample", head.output, num_classes, batch=batch, out_size=out_size)
    return fusion, head, upsample
