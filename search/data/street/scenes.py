"""Generated street scenes: a data set of any size without a download.

``draw(seed, index, height, width)`` gives one image with its labels, always the same ones for the
same arguments. A scene is drawn at random in metres (``sampling``), painted from far to near
(``surfaces``, ``objects``), then lit, hazed and given a camera's blur and noise (here).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latlut.errors import DataError
from latlut.search.data.classes import IGNORE, Classes
from latlut.search.data.street.canvas import Canvas
from latlut.search.data.street.layout import Light
from latlut.search.data.street.objects import paint_things
from latlut.search.data.street.sampling import sample_scene
from latlut.search.data.street.surfaces import (
    paint_buildings,
    paint_ground,
    paint_sky,
    paint_skyline,
)

CLASSES = Classes(
    names=(
        "road", "lane marking", "sidewalk", "building", "pole",
        "sign", "vegetation", "sky", "person", "car",
    ),
    colours=(
        (128, 64, 128), (255, 255, 255), (244, 35, 232), (70, 70, 70), (153, 153, 153),
        (220, 220, 0), (107, 142, 35), (70, 130, 180), (220, 20, 60), (0, 0, 142),
    ),
)  # fmt: skip

#: The smallest image in which a street can be told from noise.
MIN_SIZE = 32


@dataclass(frozen=True)
class StreetScenes:
    """One split of generated street scenes; any two splits or seeds share no image."""

    split: str
    """Name of the split. seed: of the whole data set. count: number of images."""
    seed: int
    count: int
    height: int
    width: int
    """``height``, ``width``: size of an image in pixels."""

    def __post_init__(self) -> None:
        if self.split not in _SPLIT_NUMBER:
            raise DataError(f"split {self.split!r}: expected {', '.join(_SPLIT_NUMBER)}")
        if self.count < 1 or self.seed < 0:
            raise DataError(
                f"street-scenes {self.split}: {self.count} images, seed {self.seed}; "
                "expected at least 1 image and a seed of 0 or more"
            )
        if min(self.height, self.width) < MIN_SIZE:
            raise DataError(
                f"street-scenes of {self.height}x{self.width} pixels: "
                f"expected at least {MIN_SIZE}x{MIN_SIZE}"
            )

    def __len__(self) -> int:
        return self.count

    def arrays(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image (H, W, 3) and labels (H, W), both uint8."""
        return draw((self.seed, _SPLIT_NUMBER[self.split], index), self.height, self.width)

    def name(self, index: int) -> str:
        """What an error calls the image."""
        return f"street-scenes {self.split} {index} (seed {self.seed})"


_SPLIT_NUMBER = {"train": 0, "val": 1, "test": 2}


def draw(
    seed: tuple[int, ...], height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One street scene.

    Args:
        seed: numbers that say which scene; sizes of one scene differ in nothing but resolution
            and noise.
        height, width: in pixels.

    Returns:
        Image (H, W, 3) uint8 and labels (H, W) uint8: ``CLASSES``, or 255 on the camera's own
        car, which some scenes show at the lower edge.
    """
    random = np.random.default_rng(seed)
    scene = sample_scene(random)
    canvas = Canvas(scene, height, width)
    paint_sky(canvas)
    paint_skyline(canvas)
    paint_ground(canvas)
    paint_buildings(canvas)
    paint_things(canvas)
    if scene.hood_share:
        _paint_hood(canvas)
    return _develop(canvas, scene.light, random), canvas.label


def _paint_hood(canvas: Canvas) -> None:
    """The camera's own car, which no network is asked about."""
    across = np.abs(canvas.columns / canvas.width - 0.5) * 2
    top = canvas.height * (1 - canvas.scene.hood_share * (1 - across**3))
    is_hood = canvas.rows[:, None] > top[None, :]
    canvas.colour[is_hood] = (0.13, 0.13, 0.14)
    canvas.label[is_hood] = IGNORE
    canvas.depth_m[is_hood] = 1
    canvas.shade[is_hood] = 1


def _develop(canvas: Canvas, light: Light, random: np.random.Generator) -> NDArray[np.uint8]:
    """Light, haze, the lens and the sensor: reflectance to an image of bytes."""
    ambient = np.asarray(light.ambient, np.float32)
    image = canvas.colour
    lit = ambient * canvas.shade[..., None]
    if light.is_night:
        lit = np.maximum(lit, canvas.glow[..., None])
        # The camera's own headlights.
        rows = (canvas.rows / canvas.height - canvas.scene.camera.horizon_share)[:, None]
        across = np.abs(canvas.columns / canvas.width - 0.5)[None, :]
        beam = np.clip(1 - across * 2.2, 0, 1) * np.clip(rows * 3, 0, 1) * np.float32(0.5)
        lit += beam[..., None]
    image *= lit
    haze_colour = np.asarray(light.sky_low, np.float32) * (0.5 if light.is_night else 0.95)
    is_ground_based = np.isfinite(canvas.depth_m)
    depth_m = np.where(is_ground_based, canvas.depth_m, np.float32(0))
    share = (1 - np.exp(-np.float32(light.haze_per_m) * depth_m))[..., None]
    image += share * (haze_colour - image)
    if light.is_blurred:
        image[1:-1, 1:-1] = (
            image[1:-1, 1:-1] * 2 + image[:-2, 1:-1] + image[2:, 1:-1]
            + image[1:-1, :-2] + image[1:-1, 2:]
        ) / 6  # fmt: skip
    noise = random.standard_normal(image.shape, np.float32)
    noise *= np.float32(light.noise_std)
    image += noise
    np.clip(image, 0, 1, out=image)
    image *= 255
    image += np.float32(0.5)
    return image.astype(np.uint8)
