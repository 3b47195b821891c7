"""The things that stand or move in a generated street: cars, people, trees, lamps, signs.

Each is painted into the rectangle that it covers, from masks in its own coordinates: ``a`` goes
from -1 at its left edge to 1 at its right edge, ``y`` is metres above the ground.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from latlut.search.data.street.canvas import (
    CAR,
    PERSON,
    POLE,
    SIGN,
    VEGETATION,
    Array,
    Canvas,
    Patch,
)
from latlut.search.data.street.layout import Colour, Thing

_GLASS: Colour = (0.16, 0.20, 0.24)
_TYRE: Colour = (0.06, 0.06, 0.07)
_POST: Colour = (0.50, 0.51, 0.52)


def paint_things(canvas: Canvas) -> None:
    """All things, in the order of the scene, which is from far to near."""
    for thing in canvas.scene.things:
        if thing.z_m > 1.5:
            _PAINTERS[thing.kind](canvas, thing)


def _frame(
    canvas: Canvas, thing: Thing, half_m: float, low_m: float, high_m: float, shift_m: float = 0.0
) -> tuple[Patch, Array, Array] | None:
    """The rectangle between two heights, half_m to both sides, with its ``a`` and ``y``."""
    x_m, z_m = thing.x_m + shift_m, thing.z_m
    patch = canvas.patch(
        canvas.column_of(x_m - half_m, z_m), canvas.column_of(x_m + half_m, z_m),
        canvas.row_of(high_m, z_m), canvas.row_of(low_m, z_m),
    )  # fmt: skip
    if patch is None:
        return None
    scale = np.float32(z_m / canvas.focal)
    a = ((patch.columns - canvas.vanishing) * scale - np.float32(x_m)) / np.float32(half_m)
    return patch, a, canvas.eye_m + (canvas.horizon - patch.rows) * scale


def _post(canvas: Canvas, thing: Thing, half_m: float, high_m: float, colour: Colour) -> None:
    frame = _frame(canvas, thing, half_m, 0, high_m)
    if frame is not None:
        gain = (1 - 0.3 * frame[1])[..., None]
        canvas.paint(frame[0], True, np.asarray(colour, np.float32) * gain, POLE, thing.z_m)


def _ground_shadow(canvas: Canvas, thing: Thing, half_m: float, length_m: float) -> None:
    near_m = max(thing.z_m - 0.25, 1.0)
    left, right = (canvas.column_of(thing.x_m + s * half_m, near_m) for s in (-1.12, 1.12))
    top, bottom = canvas.row_of(0, thing.z_m + length_m), canvas.row_of(0, near_m)
    patch = canvas.patch(left, right, top, bottom)
    if patch is not None:
        middle, radius = (left + right) / 2, max((right - left) / 2, 0.5)
        share = np.abs((patch.columns - np.float32(middle)) / np.float32(radius))
        canvas.shade[patch.area] *= np.where(share < 0.95, np.float32(0.45), np.float32(0.75))


def _paint_car(canvas: Canvas, thing: Thing) -> None:
    """A box in perspective: its near end, and the side that faces the middle of the image."""
    half_m, high_m = thing.width_m / 2, thing.height_m
    length_m = 4.3 if high_m < 1.9 else 5.4
    _ground_shadow(canvas, thing, half_m, length_m * 0.5)
    if abs(thing.x_m) > half_m:
        _paint_car_side(canvas, thing, half_m, length_m)
    frame = _frame(canvas, thing, half_m, 0.02, high_m)
    if frame is None:
        return
    patch, a, y_m = frame
    waist_m = high_m * 0.58
    aside = np.abs(a)
    above = np.clip((y_m - waist_m) / (high_m - waist_m), 0, 1)
    is_body = (aside < 1 - 0.14 * above) & (y_m > 0.28)
    is_tyre = (aside > 0.62) & (aside < 0.95) & (y_m <= 0.34)
    paint = np.asarray(thing.colour, np.float32) * (0.75 + 0.3 * y_m / high_m)[..., None]
    canvas.paint(patch, is_body, np.clip(paint, 0, 1), CAR, thing.z_m)
    canvas.paint(patch, is_tyre, _TYRE, CAR, thing.z_m)
    is_glass = (aside < 0.86 - 0.14 * above) & (above > 0.12) & (above < 0.86)
    canvas.paint(patch, is_glass, _GLASS, CAR, thing.z_m)
    is_bumper = (aside < 0.97) & (y_m > 0.28) & (y_m < 0.45)
    canvas.paint(patch, is_bumper, (0.12, 0.12, 0.13), CAR, thing.z_m)
    is_lamp = (aside > 0.68) & (aside < 0.93) & (y_m > waist_m - 0.3) & (y_m < waist_m - 0.12)
    is_coming = thing.x_m < canvas.scene.street.middle_m
    lamp: Colour = (0.95, 0.93, 0.85) if is_coming else (0.70, 0.06, 0.05)
    glow = 1.0 if canvas.scene.light.is_night else 0.0
    canvas.paint(patch, is_lamp, lamp, CAR, thing.z_m, glow)
    is_plate = (aside < 0.26) & (y_m > 0.48) & (y_m < 0.60)
    canvas.paint(patch, is_plate, (0.85, 0.85, 0.80), CAR, thing.z_m)


def _paint_car_side(canvas: Canvas, thing: Thing, half_m: float, length_m: float) -> None:
    """The flank on the plane x = edge, between the car's near and far end."""
    edge_m = thing.x_m - half_m if thing.x_m > 0 else thing.x_m + half_m
    far_m = thing.z_m + length_m
    patch = canvas.wall((edge_m, thing.z_m), (edge_m, far_m), thing.height_m)
    if patch is None:
        return
    offset = patch.columns - canvas.vanishing
    offset = np.where(np.abs(offset) < 0.5, np.float32(0.5), offset)
    z_m = np.clip(canvas.focal * np.float32(edge_m) / offset, thing.z_m, thing.z_m + length_m)
    y_m = canvas.eye_m + (canvas.horizon - patch.rows) * (z_m / canvas.focal)
    _profile(canvas, patch, thing, (z_m - np.float32(thing.z_m)) / np.float32(length_m), y_m, z_m)


def _paint_crossing_car(canvas: Canvas, thing: Thing) -> None:
    """A car seen from its side."""
    _ground_shadow(canvas, thing, 2.1, 0.9)
    frame = _frame(canvas, thing, 2.15, 0, thing.height_m)
    if frame is not None:
        patch, a, y_m = frame
        along = (a + 1) / 2 if thing.variant < 0.5 else (1 - a) / 2
        _profile(canvas, patch, thing, along, y_m, thing.z_m)


def _profile(
    canvas: Canvas, patch: Patch, thing: Thing, along: Array, y_m: Array, depth_m: object
) -> None:
    """A car from its side; ``along`` goes from 0 at its rear to 1 at its bonnet."""
    high_m = thing.height_m
    waist_m = high_m * 0.58
    above = np.clip((y_m - waist_m) / (high_m - waist_m), 0, 1)
    bonnet = 0.74 if high_m < 1.9 else 0.86
    is_body = (y_m > 0.26) & (y_m < waist_m)
    is_cabin = (y_m >= waist_m) & (along > 0.02 * above) & (along < bonnet - 0.16 * above)
    is_cabin &= y_m < high_m
    is_tyre = np.zeros_like(is_cabin)
    for axle in (0.2, 0.8):
        is_tyre |= ((along - axle) * 4.3) ** 2 + (y_m - 0.33) ** 2 < 0.11
    paint = np.asarray(thing.colour, np.float32) * np.float32(0.8)
    canvas.paint(patch, is_body | is_cabin, np.clip(paint, 0, 1), CAR, depth_m)
    is_glass = is_cabin & (above > 0.12) & (above < 0.85) & (np.abs(along - 0.4) > 0.02)
    is_glass &= (along > 0.07 + 0.02 * above) & (along < bonnet - 0.06 - 0.16 * above)
    canvas.paint(patch, is_glass, _GLASS, CAR, depth_m)
    canvas.paint(patch, is_tyre, _TYRE, CAR, depth_m)


def _paint_person(canvas: Canvas, thing: Thing) -> None:
    """Head, trunk, arms and two legs; some walk, seen from the side."""
    high_m = thing.height_m
    _ground_shadow(canvas, thing, 0.22, 0.3)
    frame = _frame(canvas, thing, 0.30 * high_m / 1.75, 0, high_m)
    if frame is None:
        return
    patch, a, y_m = frame
    y = y_m / high_m
    stride = 0.15 + 0.45 * thing.variant
    spread = np.clip((0.5 - y) * 2, 0, 1) * stride
    is_leg = (y < 0.50) & (np.abs(np.abs(a) - 0.18 - spread) < 0.20)
    is_trunk = (y >= 0.46) & (y < 0.83) & (np.abs(a) < 0.42 + 0.18 * (y - 0.46))
    is_arm = (y > 0.45) & (y < 0.80) & (np.abs(np.abs(a) - 0.62 - 0.2 * (0.8 - y)) < 0.14)
    is_head = (a * 0.30) ** 2 + ((y_m - 0.92 * high_m) * 0.85) ** 2 < (0.062 * high_m) ** 2
    coat = np.asarray(thing.colour, np.float32)
    legs = coat[::-1] * np.float32(0.5) + np.float32(0.05)
    canvas.paint(patch, is_leg, legs, PERSON, thing.z_m)
    canvas.paint(patch, is_trunk, coat, PERSON, thing.z_m)
    canvas.paint(patch, is_arm, coat * np.float32(0.8), PERSON, thing.z_m)
    canvas.paint(patch, is_head, thing.accent, PERSON, thing.z_m)


def _paint_tree(canvas: Canvas, thing: Thing) -> None:
    """A trunk and a ragged crown; both are vegetation."""
    crown_m = thing.width_m / 2
    middle_m = thing.height_m - crown_m
    frame = _frame(canvas, thing, 0.16, 0, middle_m)
    if frame is not None:
        canvas.paint(frame[0], True, thing.accent, VEGETATION, thing.z_m)
    frame = _frame(canvas, thing, crown_m * 1.15, middle_m - crown_m, thing.height_m)
    if frame is None:
        return
    patch, a, y_m = frame
    up = (y_m - np.float32(middle_m)) / np.float32(crown_m)
    offset = int(64 * thing.variant)
    coarse = canvas.grain(a * 3 + 64 + offset, up * 3 + 64)
    fine = canvas.grain(a * 9 + 64 + offset, up * 9 + 64)
    is_leaf = a * a + up * up + 0.55 * coarse + 0.45 * fine < 0.85
    value = (0.85 + 0.35 * up + 0.5 * fine + 0.3 * coarse)[..., None]
    leaf = np.clip(np.asarray(thing.colour, np.float32) * value, 0, 1)
    canvas.paint(patch, is_leaf, leaf, VEGETATION, thing.z_m)


def _paint_lamp(canvas: Canvas, thing: Thing) -> None:
    """A post with an arm over the road and the lamp at its end; all of it is pole."""
    _post(canvas, thing, thing.width_m / 2, thing.height_m, thing.colour)
    towards = -1 if thing.x_m > canvas.scene.street.middle_m else 1
    arm = _frame(canvas, thing, 0.8, thing.height_m - 0.12, thing.height_m, towards * 0.8)
    if arm is not None:
        canvas.paint(arm[0], True, thing.colour, POLE, thing.z_m)
    head = _frame(canvas, thing, 0.3, thing.height_m - 0.25, thing.height_m - 0.05, towards * 1.5)
    if head is not None:
        is_night = canvas.scene.light.is_night
        colour = (1.0, 0.93, 0.72) if is_night else (0.75, 0.75, 0.73)
        canvas.paint(head[0], True, colour, POLE, thing.z_m, glow=1.3 if is_night else 0.0)


def _paint_sign(canvas: Canvas, thing: Thing) -> None:
    """A round, triangular or square traffic sign on a thin post."""
    half_m = thing.width_m / 2
    _post(canvas, thing, 0.035, thing.height_m - half_m, _POST)
    frame = _frame(canvas, thing, half_m, thing.height_m - thing.width_m, thing.height_m)
    if frame is None:
        return
    patch, a, y_m = frame
    b = (y_m - np.float32(thing.height_m - half_m)) / np.float32(half_m)
    shape = int(thing.variant * 3)
    if shape == 0:
        distance = np.sqrt(a * a + b * b)
    elif shape == 1:
        distance = np.maximum(np.abs(a) * 1.15 + b * 0.55 + 0.42, -b)
    else:
        distance = np.maximum(np.abs(a), np.abs(b))
    canvas.paint(patch, distance <= 1.02, thing.colour, SIGN, thing.z_m)
    canvas.paint(patch, distance < 0.62, thing.accent, SIGN, thing.z_m)
    is_glyph = (np.abs(a) < 0.16) & (np.abs(b) < 0.38)
    canvas.paint(patch, is_glyph & (distance < 0.62), (0.1, 0.1, 0.12), SIGN, thing.z_m)


def _paint_board(canvas: Canvas, thing: Thing) -> None:
    """A large board on two posts, in the colours of a facade."""
    half_m, low_m = thing.width_m / 2, thing.height_m * 0.45
    for side in (-0.7, 0.7):
        frame = _frame(canvas, thing, 0.05, 0, low_m, side * half_m)
        if frame is not None:
            canvas.paint(frame[0], True, _POST, POLE, thing.z_m)
    frame = _frame(canvas, thing, half_m, low_m, thing.height_m)
    if frame is None:
        return
    patch, a, y_m = frame
    b = (y_m - np.float32(low_m)) / np.float32(thing.height_m - low_m)
    canvas.paint(patch, True, thing.colour, SIGN, thing.z_m)
    band = 0.15 + 0.5 * thing.variant
    is_text = (np.abs(a) < 0.8) & (b > band) & (b < band + 0.25)
    canvas.paint(patch, is_text & ((a * 4 + 8) % 1 < 0.75), thing.accent, SIGN, thing.z_m)


def _paint_traffic_light(canvas: Canvas, thing: Thing) -> None:
    """A box with three lamps on a post; the box is a sign."""
    _post(canvas, thing, 0.06, thing.height_m - 0.4, _POST)
    frame = _frame(canvas, thing, thing.width_m / 2, thing.height_m - 0.95, thing.height_m)
    if frame is None:
        return
    patch, a, y_m = frame
    canvas.paint(patch, True, thing.colour, SIGN, thing.z_m)
    lit = int(thing.variant * 3)
    colours = ((0.15, 0.85, 0.35), (0.98, 0.75, 0.10), (0.95, 0.12, 0.10))
    for number, colour in enumerate(colours):
        centre_m = thing.height_m - 0.78 + 0.3 * number
        is_lamp = (a * 0.17) ** 2 + (y_m - np.float32(centre_m)) ** 2 < 0.012
        shown = colour if number == lit else tuple(0.25 * value for value in colour)
        canvas.paint(patch, is_lamp, shown, SIGN, thing.z_m, 1.0 if number == lit else 0.0)


_PAINTERS: Mapping[str, Callable[[Canvas, Thing], None]] = {
    "car": _paint_car,
    "crossing_car": _paint_crossing_car,
    "person": _paint_person,
    "tree": _paint_tree,
    "lamp": _paint_lamp,
    "sign": _paint_sign,
    "board": _paint_board,
    "traffic_light": _paint_traffic_light,
}
