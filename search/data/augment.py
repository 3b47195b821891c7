"""From an example to what a network is trained on: scale, crop, mirror, normalise.

Every random choice follows from the generator that is handed in, so that an example looks the
same whoever loads it. Images go through kornia's functions; its ``AugmentationSequential`` is
not used, because it draws from PyTorch's global generator, whose state belongs to the training,
and fills masks as it fills images. Labels are picked by index (nearest neighbour), so no label is
ever mixed, and what lies outside the image is 255.

Symbols: H, W size of the image; h, w size of the crop; d label stride.

Source: FasterSeg, Appendix G and the authors' code: mirror, scale 0.75, 1 or 1.25, random crop,
ImageNet statistics, labels at 1/8 while searching. The crop is cut out before it is scaled, which
gives the same pixels but for rounding and spares scaling what is thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from kornia.enhance import normalize
from kornia.geometry.transform import hflip, resize
from torch import Tensor

from latlut.errors import DataError
from latlut.search.data.classes import IGNORE
from latlut.search.data.dataset import Example

#: Of RGB values in [0, 1], over ImageNet.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Augmentation:
    """How training examples are varied.

    Raises:
        DataError: a number outside its range.
    """

    crop: tuple[int, int]
    """(height, width) of what comes out; any size, larger than the image too."""
    scales: tuple[float, ...] = (0.75, 1.0, 1.25)
    """Factors of which one is drawn per example."""
    mirror_share: float = 0.5
    """Probability of a left-right mirror."""
    image_scale: float = 1.0
    """Factor that every image is scaled by besides; the paper searches at 0.5."""
    label_stride: int = 1
    """Labels are taken at every d-th row and column; 8 for logits at 1/8."""

    def __post_init__(self) -> None:
        if len(self.crop) != 2 or min(self.crop) < 1:
            raise DataError(f"crop {self.crop}: expected a height and a width of at least 1 pixel")
        if not self.scales or min((*self.scales, self.image_scale)) <= 0:
            raise DataError(
                f"scales {self.scales} of images scaled by {self.image_scale}: "
                "expected at least one factor, all above 0"
            )
        if not 0 <= self.mirror_share <= 1:
            raise DataError(f"mirror_share {self.mirror_share}: expected 0 to 1")
        if self.label_stride < 1:
            raise DataError(f"label_stride {self.label_stride}: expected 1 or more")


def augmented(
    example: Example, augmentation: Augmentation, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A random view of an example.

    Returns:
        Image (3, h, w) float32, normalised; label (ceil(h / d), ceil(w / d)) int64.
    """
    height, width = example.label.shape
    crop_height, crop_width = augmentation.crop
    scale = (
        augmentation.image_scale * augmentation.scales[random.integers(len(augmentation.scales))]
    )
    window = (max(1, round(crop_height / scale)), max(1, round(crop_width / scale)))
    top = _offset(random, height, window[0])
    left = _offset(random, width, window[1])
    is_mirrored = random.random() < augmentation.mirror_share

    rows = _nearest(window[0], crop_height) + top
    columns = _nearest(window[1], crop_width) + left
    if is_mirrored:
        columns = columns.flip(0)
    stride = augmentation.label_stride
    label = _picked(example.label, rows[::stride], columns[::stride])

    image = _cut(example.image, top, left, window)
    if window != augmentation.crop:
        image = resize(image, augmentation.crop, interpolation="bilinear", align_corners=False)
    if is_mirrored:
        image = hflip(image)
    return _normalised(image)[0].contiguous(), label


def whole(example: Example, image_scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """An example as it is, for scores: nothing is cropped.

    Args:
        example: H, W pixels.
        image_scale: factor by which image and labels are scaled.

    Returns:
        Image (3, h, w) float32, normalised; label (h, w) int64, h = round(H * image_scale).
    """
    image = example.image[None].float() / 255
    label = example.label.long()
    if image_scale != 1.0:
        height, width = label.shape
        size = (max(1, round(height * image_scale)), max(1, round(width * image_scale)))
        image = resize(image, size, interpolation="bilinear", align_corners=False)
        label = _picked(example.label, _nearest(height, size[0]), _nearest(width, size[1]))
    return _normalised(image)[0].contiguous(), label


def denormalised(image: Tensor) -> Tensor:
    """(*, 3, H, W) uint8 picture of a normalised image, for figures."""
    mean = torch.tensor(IMAGENET_MEAN, device=image.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=image.device).view(3, 1, 1)
    return ((image.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _offset(random: np.random.Generator, size: int, window: int) -> int:
    """Where a window starts: inside the image, or so that it holds all of a smaller one."""
    low, high = sorted((0, size - window))
    return int(random.integers(low, high + 1))


def _nearest(window: int, size: int) -> Tensor:
    """(size) pixel of the window under the centre of each pixel that comes out."""
    return (torch.arange(size) * 2 + 1) * window // (2 * size)


def _picked(label: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """int64 labels at the crossings of rows and columns, 255 outside."""
    height, width = label.shape
    picked = label[rows.clamp(0, height - 1)][:, columns.clamp(0, width - 1)].long()
    picked[(rows < 0) | (rows >= height)] = IGNORE
    picked[:, (columns < 0) | (columns >= width)] = IGNORE
    return picked


def _cut(image: Tensor, top: int, left: int, window: tuple[int, int]) -> Tensor:
    """(1, 3, *window) float in [0, 1]; the ImageNet mean outside the image, 0 once normalised."""
    height, width = image.shape[-2:]
    bottom, right = min(top + window[0], height), min(left + window[1], width)
    inside = image[:, max(top, 0) : bottom, max(left, 0) : right].float().div_(255)
    if inside.shape[-2:] == window:
        return inside[None]
    result = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1).repeat(1, 1, *window)
    result[0, :, max(-top, 0) : bottom - top, max(-left, 0) : right - left] = inside
    return result


def _normalised(image: Tensor) -> Tensor:
    result: Tensor = normalize(image, torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD))
    return result
