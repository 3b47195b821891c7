"""How well a trained network segments a split: whole images, full resolution, one scale, no flip.

The confusion matrix is added up over the whole split, with the labels as they are: where images are
scaled before they enter the network, its logits are enlarged to the labels' size.

Symbols: B batch, C classes, H, W pixels of an image, h, w of a window.

Source: FasterSeg, Sec. 4.1: class mIoU, single scale, no flip. The sliding window is what other
papers use for networks that are bound to a crop's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from kornia.geometry.transform import resize as scaled_image
from lightning_fabric import Fabric
from torch import Tensor, nn

from latlut.errors import SpecError
from latlut.operators.modules import resize
from latlut.search.data.classes import Classes
from latlut.search.data.dataset import Split
from latlut.search.data.loading import Batch, val_loader
from latlut.search.networks.network import main_logits
from latlut.search.train.metrics import ScoreMeter, SegmentationScore, likeliest_classes

#: Told after each image: its number in the split, and its predicted classes (H, W) int64.
PredictionListener = Callable[[int, Tensor], None]


def evaluate(
    network: nn.Module,
    split: Split,
    classes: Classes,
    *,
    fabric: Fabric | None = None,
    image_scale: float = 1.0,
    window: tuple[int, int] | None = None,
    limit: int | None = None,
    workers: int = 0,
    on_prediction: PredictionListener | None = None,
) -> SegmentationScore:
    """The score of a network over a split, over all processes together.

    Args:
        network: image (B, 3, H, W), ImageNet-normalised, -> logits (B, C, *, *); it is on the
            fabric's device, put into evaluation mode for the time, and back.
        split: where images and labels come from.
        classes: what the labels mean; their number is C.
        fabric: device, precision and processes; one CPU process if not given.
        image_scale: factor by which images are scaled before they enter the network.
        window: (h, w) of a window that slides over the image; the whole image if not given.
        limit: how many images; all if None.
        workers: processes that load; 0 loads in this one.
        on_prediction: told each image's predicted classes at the labels' size.

    Raises:
        DataError: a file that cannot be used.
        SpecError: logits of another number of classes; a window below 1 pixel.
    """
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    was_training = network.training
    network.eval()
    meter = ScoreMeter(classes.count, fabric)
    with torch.no_grad():
        for number, batch in split_batches(fabric, split, limit=limit, workers=workers):
            with fabric.autocast():
                logits = full_logits(network, batch.image, image_scale=image_scale, window=window)
            if logits.shape[1] != classes.count:
                raise SpecError(
                    f"the network has {logits.shape[1]} classes, the data {classes.count}"
                )
            predicted = likeliest_classes(logits)
            meter.update(predicted, batch.label)
            if on_prediction is not None:
                on_prediction(number, predicted[0])
    network.train(was_training)
    return meter.score()


def split_batches(
    fabric: Fabric,
    split: Split,
    *,
    image_scale: float = 1.0,
    limit: int | None = None,
    workers: int = 0,
) -> Iterator[tuple[int, Batch]]:
    """This process's images of a split, one by one on its device, with their numbers in the split.

    Args:
        image_scale: factor by which images and labels are scaled.
        limit: how many images of all processes together; all if None.
        workers: processes that load; 0 loads in this one.
    """
    count = len(split) if limit is None else min(limit, len(split))
    loader = val_loader(
        split,
        image_scale=image_scale,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        workers=workers,
        pin_memory=fabric.device.type == "cuda",
    )
    numbers = range(fabric.global_rank, count, fabric.world_size)
    for number, (image, label) in zip(numbers, loader, strict=False):
        yield number, Batch(fabric.to_device(image), fabric.to_device(label))


def full_logits(
    network: nn.Module,
    image: Tensor,
    *,
    image_scale: float = 1.0,
    window: tuple[int, int] | None = None,
) -> Tensor:
    """Logits at the image's size.

    Args:
        network: in evaluation mode.
        image: (B, 3, H, W) float, ImageNet-normalised.
        image_scale: factor by which it is scaled before it enters the network.
        window: see ``evaluate``.

    Returns:
        (B, C, H, W) float32.
    """
    size = (int(image.shape[-2]), int(image.shape[-1]))
    if image_scale != 1.0:
        small = (max(1, round(size[0] * image_scale)), max(1, round(size[1] * image_scale)))
        image = scaled_image(image, small, interpolation="bilinear", align_corners=False)
    logits = (
        main_logits(network(image)) if window is None else _window_logits(network, image, window)
    ).float()
    return logits if tuple(logits.shape[-2:]) == size else resize(logits, size, "bilinear")


def window_starts(size: int, window: int) -> tuple[int, ...]:
    """Where windows start along one side: they cover it and overlap by about a third or more.

    The last window ends with the side; they are spread evenly.
    """
    if window >= size:
        return (0,)
    steps = -(-3 * (size - window) // (2 * window))
    # Windows of few pixels would start at the same one twice.
    return tuple(dict.fromkeys(round(step * (size - window) / steps) for step in range(steps + 1)))


def _window_logits(network: nn.Module, image: Tensor, window: tuple[int, int]) -> Tensor:
    """Mean of the windows' logits at each pixel."""
    if min(window) < 1:
        raise SpecError(f"window {window}: expected a height and a width of at least 1 pixel")
    height, width = int(image.shape[-2]), int(image.shape[-1])
    total: Tensor | None = None
    seen = image.new_zeros(1, 1, height, width)
    for top in window_starts(height, window[0]):
        for left in window_starts(width, window[1]):
            part = (..., slice(top, top + window[0]), slice(left, left + window[1]))
            cut = image[part]
            logits = main_logits(network(cut)).float()
            if logits.shape[-2:] != cut.shape[-2:]:
                logits = resize(logits, (int(cut.shape[-2]), int(cut.shape[-1])), "bilinear")
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], height, width)
            total[part] += logits
            seen[part] += 1
    assert total is not None
    return total / seen
