"""The image being painted: colour, class, distance and own light of every pixel, and the camera.

Everything is painted from far to near, each thing over what stands behind it. Columns and rows
of the image are related to metres by the camera of the scene:

    column = vanishing + focal * x / z        row = horizon + focal * (camera height - y) / z

Symbols: H, W height and width in pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latlut.search.data.street.layout import Scene

#: Values or masks of pixels, broadcast against each other.
Array = NDArray[Any]

ROAD, MARKING, SIDEWALK, BUILDING, POLE, SIGN, VEGETATION, SKY, PERSON, CAR = range(10)

_GRAIN = 64  # side of the tile of random numbers that textures are read from


class Patch(NamedTuple):
    """A rectangle of the image, and the row and column of each of its pixels' centres."""

    area: tuple[slice, slice]
    rows: Array  # (h, 1)
    columns: Array  # (1, w)


class Canvas:
    """What has been painted so far; starts as an empty image of ``scene``'s size and camera.

    Attributes:
        colour: (H, W, 3) float, reflectance in [0, 1] before lighting. label: (H, W) uint8.
        depth_m: (H, W) float, metres ahead, infinite for the sky.
        shade: (H, W) float, share of the light that arrives. glow: (H, W) float, own light.
    """

    def __init__(self, scene: Scene, height: int, width: int) -> None:
        self.scene = scene
        self.height, self.width = height, width
        camera = scene.camera
        self.focal = np.float32(camera.focal_widths * width)
        self.horizon = np.float32(camera.horizon_share * height)
        self.vanishing = np.float32(camera.vanishing_share * width)
        self.eye_m = np.float32(camera.height_m)
        self.colour = np.zeros((height, width, 3), np.float32)
        self.label = np.full((height, width), SKY, np.uint8)
        self.depth_m = np.full((height, width), np.inf, np.float32)
        self.shade = np.ones((height, width), np.float32)
        self.glow = np.zeros((height, width), np.float32)
        self.rows = np.arange(height, dtype=np.float32) + np.float32(0.5)
        self.columns = np.arange(width, dtype=np.float32) + np.float32(0.5)
        texture = np.random.default_rng(scene.texture_seed)
        self._grain = texture.random((_GRAIN, _GRAIN), np.float32) - np.float32(0.5)

    def column_of(self, x_m: float, z_m: float) -> float:
        """Column of a point."""
        return float(self.vanishing + self.focal * x_m / z_m)

    def row_of(self, y_m: float, z_m: float) -> float:
        """Row of a point."""
        return float(self.horizon + self.focal * (self.eye_m - y_m) / z_m)

    def patch(self, left: float, right: float, top: float, bottom: float) -> Patch | None:
        """The pixels between two columns and two rows; None where the image has none of them.

        It is at least one pixel wide and high, so that thin things far away leave a trace.
        """
        if not (left < self.width and right > 0 and top < self.height and bottom > 0):
            return None
        first_row, first_column = max(int(top + 0.5), 0), max(int(left + 0.5), 0)
        last_row = min(max(int(bottom + 0.5), first_row + 1), self.height)
        last_column = min(max(int(right + 0.5), first_column + 1), self.width)
        if first_row >= last_row or first_column >= last_column:
            return None
        area = (slice(first_row, last_row), slice(first_column, last_column))
        return Patch(area, self.rows[area[0], None], self.columns[None, area[1]])

    def wall(
        self, near: tuple[float, float], far: tuple[float, float], height_m: float
    ) -> Patch | None:
        """The pixels between uprights at two points (x, z), as high as the near one."""
        left, right = sorted((self.column_of(*near), self.column_of(*far)))
        return self.patch(left, right, self.row_of(height_m, near[1]), self.row_of(0, near[1]))

    def paint(
        self, patch: Patch, mask: Any, colour: Any, label: int, depth_m: Any, glow: float = 0.0
    ) -> None:
        """Paint the patch's pixels where ``mask`` holds.

        Args:
            patch: where.
            mask: (h, w) bool, or True for all.
            colour: one colour (3), or one per pixel (h, w, 3).
            label: class of the pixels.
            depth_m: one number, or one per column or pixel, broadcast to (h, w).
            glow: light that the pixels give themselves.
        """
        area = patch.area
        is_all = mask is True
        where = True if is_all else mask[..., None]
        np.copyto(self.colour[area], np.asarray(colour, np.float32), where=where)
        where = True if is_all else mask
        np.copyto(self.label[area], np.uint8(label), where=where)
        np.copyto(self.depth_m[area], np.asarray(depth_m, np.float32), where=where)
        np.copyto(self.shade[area], np.float32(1), where=where)
        if glow or self.scene.light.is_night:
            np.copyto(self.glow[area], np.float32(glow), where=where)

    def grain(self, across: Any, along: Any) -> Array:
        """Random numbers in [-0.5, 0.5), constant in squares of side 1; broadcasts."""
        rows = np.asarray(across).astype(np.int32) & (_GRAIN - 1)
        columns = np.asarray(along).astype(np.int32) & (_GRAIN - 1)
        return self._grain[rows, columns]

    def smooth_grain(self, count: int, cells: float, row: int = 0) -> Array:
        """(count) random numbers in [-0.5, 0.5] that vary smoothly, with ``cells`` knots."""
        positions = np.linspace(0, cells, count, dtype=np.float32)
        whole = positions.astype(np.int32)
        part = positions - whole
        knots = self._grain[row % _GRAIN]
        near, far = knots[whole & (_GRAIN - 1)], knots[(whole + 1) & (_GRAIN - 1)]
        return near + (far - near) * part * part * (3 - 2 * part)
