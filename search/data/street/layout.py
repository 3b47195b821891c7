"""What a generated street consists of: values in metres, before anything is drawn.

A scene is a straight street seen by a camera that stands on it. The world has its origin on the
ground below the camera: x to the right, y up, z ahead, in metres; the street runs along z. Nothing
here knows an image size, so that one scene can be drawn at any resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Camera:
    """Where the camera looks; shares of the image, so that they hold at any size."""

    focal_widths: float
    horizon_share: float
    vanishing_share: float
    height_m: float


@dataclass(frozen=True)
class Light:
    """Time of day and weather. Colours multiply, 1 leaves a surface as it is."""

    is_night: bool
    ambient: Colour
    sky_high: Colour
    sky_low: Colour
    haze_per_m: float
    cloud_share: float
    left_facade: float
    right_facade: float
    shadow_from_m: float
    shadow_to_m: float
    shadow: float
    noise_std: float
    is_blurred: bool


@dataclass(frozen=True)
class Building:
    """A block with its street side on the plane x = ``x_m``, from z ``near_m`` to ``far_m``."""

    x_m: float
    near_m: float
    far_m: float
    height_m: float
    depth_m: float
    colour: Colour
    panel: Colour
    window: Colour
    bay_m: float
    floor_m: float
    window_share: float
    has_shop: bool


@dataclass(frozen=True)
class Street:
    """The ground: half widths from the middle of the road, and what is painted on it."""

    middle_m: float
    road_m: float
    lanes: int
    has_edge_lines: bool
    dash_m: float
    surface: Colour
    sidewalk_tint: float
    verge_m: float
    crossing_m: float
    crossing_width_m: float
    has_zebra: bool
    tile_m: float


@dataclass(frozen=True)
class Thing:
    """An object on the ground at (x, z).

    ``kind``: car, crossing_car, person, tree, lamp, sign, board or traffic_light. ``variant`` is
    a random number in [0, 1) from which its drawing takes small choices.
    """

    kind: str
    x_m: float
    z_m: float
    width_m: float
    height_m: float
    colour: Colour
    accent: Colour
    variant: float


@dataclass(frozen=True)
class Scene:
    """A whole street; ``hood_share`` is the height of the camera's own car in the image."""

    camera: Camera
    light: Light
    street: Street
    buildings: tuple[Building, ...]
    things: tuple[Thing, ...]
    end_m: float
    hood_share: float
    texture_seed: int
