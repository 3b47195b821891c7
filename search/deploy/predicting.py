"""A trained network on images without labels: classes, and pictures of them.

``prediction_files`` does it to files.

Symbols: B images in a batch, C classes, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from latlut.errors import LatlutError
from latlut.search.data.augment import whole
from latlut.search.data.cityscapes import CITYSCAPES_CLASSES, CITYSCAPES_LABEL_IDS
from latlut.search.data.classes import Classes
from latlut.search.data.contact_sheet import painted_labels
from latlut.search.data.dataset import Example, Split
from latlut.search.data.files import FileSplit
from latlut.search.train.evaluating import full_logits
from latlut.search.train.metrics import likeliest_classes

#: overlay: the image under its classes' colours; colour: the colours alone; label-ids: Cityscapes'
#: numbers of the classes, one byte a pixel.
Form = Literal["overlay", "colour", "label-ids"]

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Predictor:
    """A network with all that it needs to judge an image."""

    network: nn.Module
    """Image (1, 3, H, W), ImageNet-normalised -> logits; in evaluation mode, on the fabric's
    device."""
    classes: Classes
    """What the logits mean."""
    fabric: Fabric
    """Device and precision."""
    image_scale: float = 1.0
    window: tuple[int, int] | None = None
    """``image_scale``, ``window``: see ``evaluating.full_logits``."""
    form: Form = "overlay"
    opacity: float = 0.5
    """``form``, ``opacity``: how predictions are drawn; opacity of an overlay's colours, 0 to 1."""

    def labels(self, image: Bytes) -> Bytes:
        """(H, W) classes of an image (H, W, 3), RGB."""
        found: Bytes = self.batch_labels([image])[0]
        return found

    def batch_labels(self, images: Sequence[Bytes]) -> Bytes:
        """(B, H, W) classes of images (H, W, 3), RGB, all of one size."""
        height, width = images[0].shape[:2]
        no_labels = torch.zeros(height, width, dtype=torch.uint8)
        examples = [
            Example(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), no_labels)
            for image in images
        ]
        normalised = self.fabric.to_device(torch.stack([whole(one)[0] for one in examples]))
        with torch.no_grad(), self.fabric.autocast():
            logits = full_logits(
                self.network, normalised, image_scale=self.image_scale, window=self.window
            )
        found: Bytes = likeliest_classes(logits).to(torch.uint8).cpu().numpy()
        return found

    def picture(self, image: Bytes) -> Image.Image:
        """What is written for an image (H, W, 3), RGB."""
        return self.drawn_over(image, self.labels(image))

    def drawn_over(self, image: Bytes, labels: Bytes) -> Image.Image:
        """What is written for an image (H, W, 3), RGB, with its labels (H, W)."""
        if self.form == "overlay":
            return Image.fromarray(overlay(image, labels, self.classes, self.opacity))
        return drawn(labels, self.classes, self.form)


def overlay(image: Bytes, labels: Bytes, classes: Classes, opacity: float = 0.5) -> Bytes:
    """The image (H, W, 3) under the colours of its labels (H, W), uint8.

    Raises:
        LatlutError: an opacity outside 0 to 1.
    """
    if not 0 <= opacity <= 1:
        raise LatlutError(f"opacity {opacity}: expected 0 to 1")
    painted = painted_labels(labels, classes).astype(np.float32)
    mixed = image.astype(np.float32) * (1 - opacity) + painted * opacity
    rounded: Bytes = (mixed + 0.5).astype(np.uint8)
    return rounded


def drawn(labels: Bytes, classes: Classes, form: Literal["colour", "label-ids"]) -> Image.Image:
    """A picture of labels (H, W): the classes' colours, or their numbers.

    The numbers are Cityscapes' label ids of its 19 classes, and of any others their position.
    """
    if form == "colour":
        return Image.fromarray(painted_labels(labels, classes))
    if classes.names == CITYSCAPES_CLASSES.names:
        labels = np.array(CITYSCAPES_LABEL_IDS, np.uint8)[labels]
    return Image.fromarray(labels)


def prediction_names(split: Split) -> tuple[str, ...]:
    """File names, without suffix, for the predictions of a split's images; all different.

    ``berlin_000000_000019_leftImg8bit.png`` becomes ``berlin_000000_000019``, which is how the
    Cityscapes server finds its image.
    """
    source = split.source
    if not isinstance(source, FileSplit):
        return tuple(f"{source.split}_{number:05d}" for number in range(len(source)))
    stems = [pair.image.stem.removesuffix("_leftImg8bit") for pair in source.pairs]
    if len(set(stems)) == len(stems):
        return tuple(stems)
    return tuple(f"{number:05d}_{stem}" for number, stem in enumerate(stems))
