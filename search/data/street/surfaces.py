"""Sky, far skyline, ground and buildings of a generated street."""

from __future__ import annotations

from typing import Any

import numpy as np

from latlut.search.data.street.canvas import (
    BUILDING,
    MARKING,
    ROAD,
    SIDEWALK,
    SKY,
    VEGETATION,
    Array,
    Canvas,
)
from latlut.search.data.street.layout import Building

_LINE_M = 0.16  # width of a painted line


def paint_sky(canvas: Canvas) -> None:
    """A gradient down to the horizon, with clouds."""
    light = canvas.scene.light
    patch = canvas.patch(0, canvas.width, 0, canvas.height)
    assert patch is not None
    share = np.clip(patch.rows / max(float(canvas.horizon), 1.0), 0, 1)[..., None]
    high, low = np.asarray(light.sky_high, np.float32), np.asarray(light.sky_low, np.float32)
    sky = np.broadcast_to(high + (low - high) * share, canvas.colour.shape)
    if light.cloud_share > 0.25:
        wide = canvas.smooth_grain(canvas.width, 7, 1) + canvas.smooth_grain(canvas.width, 17, 2)
        tall = canvas.smooth_grain(canvas.height, 6, 3) + canvas.smooth_grain(canvas.height, 15, 4)
        cloud = np.clip(wide[None, :] + tall[:, None] + light.cloud_share - 0.5, 0, 0.6)
        sky = sky + cloud[..., None] * (0.25 if light.is_night else 0.9) * (low - sky)
    canvas.paint(patch, True, sky, SKY, np.inf)
    if light.is_night:  # the sky is as bright as it is, whatever the light on the street
        canvas.glow[...] = 1


def paint_skyline(canvas: Canvas) -> None:
    """What closes the street: blocks and trees far away."""
    end_m = canvas.scene.end_m
    unit = float(canvas.focal / end_m)
    blocks = canvas.grain(np.arange(canvas.width) / max(unit * 9, 1.0), 5)
    trees = canvas.smooth_grain(canvas.width, canvas.width / max(7 * unit, 1.0), 6)
    for label, heights_m, colour in (
        (BUILDING, 9 + 16 * blocks, np.asarray((0.55, 0.53, 0.52)) * (1 + 0.5 * blocks[:, None])),
        (VEGETATION, 4 + 6 * trees, (0.25, 0.33, 0.20)),
    ):
        patch = canvas.patch(0, canvas.width, canvas.row_of(30, end_m), canvas.row_of(0, end_m))
        if patch is None:
            return
        tops = canvas.horizon + (canvas.eye_m - heights_m[None, :]) * np.float32(unit)
        canvas.paint(patch, patch.rows >= tops, colour, label, end_m)


def paint_ground(canvas: Canvas) -> None:
    """Road, markings, sidewalks, verges and the side street, from the horizon down."""
    scene, street, light = canvas.scene, canvas.scene.street, canvas.scene.light
    top = float(canvas.horizon) + 0.5
    patch = canvas.patch(0, canvas.width, top, canvas.height)
    if patch is None:
        return
    z_m = canvas.focal * canvas.eye_m / (patch.rows - canvas.horizon)
    x_m = (patch.columns - canvas.vanishing) * (z_m / canvas.focal) - np.float32(street.middle_m)
    aside = np.abs(x_m)
    grain = canvas.grain(x_m * 9 + 4096, z_m * 9) + canvas.grain(x_m * 0.9 + 4096, z_m * 0.7) * 0.8
    # Far away the grain is finer than a pixel: its mean is what a camera would see.
    value = 1 + grain * np.minimum(12 / z_m, 1) * 0.16
    surface = np.asarray(street.surface, np.float32)

    crossing_end_m = street.crossing_m + street.crossing_width_m
    is_crossing = (z_m > street.crossing_m) & (z_m < crossing_end_m)
    is_road = (aside < street.road_m) | is_crossing
    curb = np.float32(0.18)
    is_curb = (aside < street.road_m + curb) & ~is_road
    tint = np.where(is_road, np.float32(1), np.float32(street.sidewalk_tint))
    if street.tile_m:
        across = (x_m / street.tile_m) % 1 < 0.08
        along = (z_m / street.tile_m) % 1 < 0.08
        tint = np.where(~is_road & (across | along) & (z_m < 25), tint * 0.8, tint)
    tint = np.where(is_curb, np.float32(1.35), tint)
    colour = surface * (value * tint)[..., None]
    canvas.paint(patch, True, colour, SIDEWALK, z_m)
    canvas.label[patch.area][is_road] = ROAD
    if street.verge_m:
        walls = [b.x_m - street.middle_m for b in scene.buildings] or [street.road_m + 6]
        right_m, left_m = max([*walls, street.road_m]), -min([*walls, -street.road_m])
        outer_m = np.where(x_m > 0, np.float32(right_m), np.float32(left_m))
        is_verge = (aside > np.maximum(outer_m - street.verge_m, street.road_m + 1)) & ~is_road
        grass = np.asarray((0.30, 0.40, 0.18), np.float32) * (1 + grain * 0.5)[..., None]
        canvas.paint(patch, is_verge, grass, VEGETATION, z_m)

    white = np.float32(0.82) * value[..., None] * np.ones(3, np.float32)
    canvas.paint(patch, _markings(canvas, x_m, z_m, is_crossing), white, MARKING, z_m)

    world_x_m = x_m + np.float32(street.middle_m)
    is_shaded = (world_x_m > light.shadow_from_m) & (world_x_m < light.shadow_to_m) & ~is_crossing
    canvas.shade[patch.area][is_shaded] = light.shadow


def _markings(canvas: Canvas, x_m: Array, z_m: Array, is_crossing: Array) -> Array:
    """(h, w) bool: where the road is painted."""
    street = canvas.scene.street
    per_pixel_m = z_m / canvas.focal
    half_m = np.maximum(np.float32(_LINE_M / 2), per_pixel_m * np.float32(0.45))
    # A line much thinner than a pixel cannot be seen, so it is not labelled either.
    is_visible = (per_pixel_m < 2.2 * _LINE_M) & ~is_crossing
    dashed = (z_m / street.dash_m) % 1 < 0.55
    painted = np.zeros(x_m.shape, bool)
    for lane in range(1 - street.lanes, street.lanes):
        is_line = np.abs(x_m - np.float32(1.65 * lane)) < half_m
        painted |= is_line & dashed if lane else is_line & (dashed | (street.lanes > 1))
    if street.has_edge_lines:
        painted |= np.abs(np.abs(x_m) - np.float32(street.road_m - 0.3)) < half_m
    ahead_m = street.crossing_m - z_m
    is_stop = (ahead_m > 4.2) & (ahead_m < 4.6) & (x_m > 0) & (x_m < street.road_m - 0.2)
    is_open = (ahead_m > 4.6) | (ahead_m < -street.crossing_width_m)
    painted = (painted & is_open) | is_stop
    if street.has_zebra:
        is_band = (ahead_m > 0.8) & (ahead_m < 3.8) & (np.abs(x_m) < street.road_m - 0.3)
        painted |= is_band & (x_m % 1.0 < 0.5)
    result: Array = painted & is_visible
    return result


def paint_buildings(canvas: Canvas) -> None:
    """All blocks, far ones first: the face towards the camera, then the street side."""
    for block in sorted(canvas.scene.buildings, key=lambda block: -block.near_m):
        _paint_front(canvas, block)
        _paint_street_side(canvas, block)


def _paint_front(canvas: Canvas, block: Building) -> None:
    outer_m = block.x_m + (block.depth_m if block.x_m > 0 else -block.depth_m)
    near_m = block.near_m
    patch = canvas.wall((block.x_m, near_m), (outer_m, near_m), block.height_m)
    if patch is None:
        return
    y_m = canvas.eye_m + (canvas.horizon - patch.rows) * np.float32(block.near_m / canvas.focal)
    x_m = (patch.columns - canvas.vanishing) * np.float32(block.near_m / canvas.focal)
    away_m = np.abs(x_m - np.float32(block.x_m))
    colour = _facade(canvas, block, away_m, y_m, np.float32(block.near_m), gain=0.72)
    canvas.paint(patch, True, colour, BUILDING, block.near_m)


def _paint_street_side(canvas: Canvas, block: Building) -> None:
    x_m = block.x_m
    patch = canvas.wall((x_m, block.near_m), (x_m, block.far_m), block.height_m)
    if patch is None:
        return
    z_m = canvas.focal * np.float32(block.x_m) / (patch.columns - canvas.vanishing)
    z_m = np.clip(z_m, block.near_m, block.far_m)
    y_m = canvas.eye_m + (canvas.horizon - patch.rows) * (z_m / canvas.focal)
    light = canvas.scene.light
    gain = light.left_facade if block.x_m < 0 else light.right_facade
    colour = _facade(canvas, block, z_m - np.float32(block.near_m), y_m, z_m, gain)
    canvas.paint(patch, (y_m > 0) & (y_m < block.height_m), colour, BUILDING, z_m)
    if light.is_night:
        # Some windows are lit.
        floor, bay = y_m / block.floor_m, z_m / block.bay_m
        is_lit = (canvas.grain(floor, bay + 7) > 0.25) & _is_window(block, z_m - block.near_m, y_m)
        is_lit &= canvas.label[patch.area] == BUILDING
        canvas.paint(patch, is_lit, (0.95, 0.80, 0.50), BUILDING, z_m, glow=1.0)


def _is_window(block: Building, along_m: Array, y_m: Array) -> Array:
    bay, floor = (along_m / block.bay_m) % 1, (y_m / block.floor_m) % 1
    gap = (1 - block.window_share) / 2
    is_inside = (bay > gap) & (bay < 1 - gap) & (floor > 0.28) & (floor < 0.82)
    result: Array = is_inside & (y_m > block.floor_m) & (y_m < block.height_m - 0.6)
    return result


def _facade(
    canvas: Canvas, block: Building, along_m: Array, y_m: Array, z_m: Any, gain: float
) -> Array:
    """(h, w, 3) colour of a wall with windows, a shop front and a ledge."""
    wall = np.asarray(block.colour, np.float32)
    detail = np.minimum(22 / z_m, 1)  # windows far away blend with the wall
    value = gain * (1 + 0.12 * canvas.grain(along_m * 3, y_m * 3 + 4096) * detail)
    colour = wall * value[..., None]
    window = np.asarray(block.window, np.float32) * np.float32(gain)
    share = (_is_window(block, along_m, y_m) * detail)[..., None]
    colour += share * (window - colour)
    if block.has_shop:
        is_glass = (y_m > 0.4) & (y_m < 2.3) & ((along_m / 2.6) % 1 < 0.8)
        colour += (is_glass * detail)[..., None] * (window * 0.8 - colour)
        is_panel = (y_m > 2.45) & (y_m < 3.15) & ((along_m / 9) % 1 < 0.75)
        panel = np.asarray(block.panel, np.float32) * np.float32(gain)
        colour += (is_panel * np.float32(1))[..., None] * (panel - colour)
    is_ledge = y_m > block.height_m - 0.45
    result: Array = colour * np.where(is_ledge, np.float32(0.7), np.float32(1))[..., None]
    return result
