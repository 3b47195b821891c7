"""A trained network on images without labels: classes, pictures of them, whole folders, animations.

Symbols: C classes, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from PIL import Image, ImageSequence, UnidentifiedImageError
from torch import nn

from latlut.errors import DataError, LatlutError
from latlut.search.data.augment import whole
from latlut.search.data.cityscapes import CITYSCAPES_CLASSES, CITYSCAPES_LABEL_IDS
from latlut.search.data.classes import Classes
from latlut.search.data.contact_sheet import painted_labels
from latlut.search.data.dataset import Example, Split
from latlut.search.data.files import FileSplit, read_image
from latlut.search.evaluating import full_logits

#: overlay: the image under its classes' colours; colour: the colours alone; label-ids: Cityscapes'
#: numbers of the classes, one byte a pixel.
Form = Literal["overlay", "colour", "label-ids"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif")
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts",
)  # fmt: skip
#: Formats whose files can hold several pictures, which are read and written picture by picture.
_ANIMATED = (".gif", ".webp", ".png")

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Predictor:
    """A network with all that it needs to judge an image.

    Attributes:
        network: image (1, 3, H, W), ImageNet-normalised -> logits; in evaluation mode, on the
            fabric's device.
        classes: what the logits mean.
        fabric: device and precision.
        image_scale, window: see ``evaluating.full_logits``.
        form, opacity: how predictions are drawn; opacity of an overlay's colours, 0 to 1.
    """

    network: nn.Module
    classes: Classes
    fabric: Fabric
    image_scale: float = 1.0
    window: tuple[int, int] | None = None
    form: Form = "overlay"
    opacity: float = 0.5

    def labels(self, image: Bytes) -> Bytes:
        """(H, W) classes of an image (H, W, 3), RGB."""
        height, width = image.shape[:2]
        example = Example(
            torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            torch.zeros(height, width, dtype=torch.uint8),
        )
        normalised = self.fabric.to_device(whole(example)[0][None])
        with torch.no_grad(), self.fabric.autocast():
            logits = full_logits(
                self.network, normalised, image_scale=self.image_scale, window=self.window
            )
        found: Bytes = logits.argmax(dim=1)[0].to(torch.uint8).cpu().numpy()
        return found

    def picture(self, image: Bytes) -> Image.Image:
        """What is written for an image (H, W, 3), RGB.

        Raises:
            LatlutError: label ids of classes that are not Cityscapes'.
        """
        labels = self.labels(image)
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
    """A picture of labels (H, W): the classes' colours, or Cityscapes' label ids.

    Raises:
        LatlutError: label ids of classes that are not Cityscapes'.
    """
    if form == "colour":
        return Image.fromarray(painted_labels(labels, classes))
    check_label_ids(classes)
    return Image.fromarray(np.array(CITYSCAPES_LABEL_IDS, np.uint8)[labels])


def check_label_ids(classes: Classes) -> None:
    """Check that the classes are Cityscapes' 19, which alone have label ids.

    Raises:
        LatlutError: they are not.
    """
    if classes.names != CITYSCAPES_CLASSES.names:
        raise LatlutError(
            f"label ids are of Cityscapes' 19 classes; these are {len(classes)}: "
            f"{', '.join(classes.names[:4])}, ..."
        )


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


@dataclass(frozen=True)
class Task:
    """An image file and where its prediction goes."""

    source: Path
    target: Path


def tasks_of(source: Path, out: Path, form: Form) -> tuple[Task, ...]:
    """What there is to predict in a file or in all of a folder.

    Args:
        source: an image, or a folder that is looked through with all below it.
        out: for a folder's predictions a folder, with the same paths below; for one image a file
            if it has an image's suffix, else a folder.
        form: label ids are written as PNG, pictures too, animations in their own format.

    Raises:
        DataError: nothing there, no image, a video, two images whose predictions would have one
            name.
    """
    if source.is_dir():
        inside = out.resolve()
        files = [
            path
            for path in sorted(source.rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES
            and not path.name.startswith(".")
            and inside not in path.resolve().parents
        ]
        if not files:
            raise DataError(f"{source}: no image in it; read are {', '.join(IMAGE_SUFFIXES)}")
        targets = [out / path.relative_to(source).parent / _name(path, form) for path in files]
        for number, target in enumerate(targets):
            if target in targets[:number]:
                other = files[targets.index(target)]
                raise DataError(f"{other} and {files[number]} would both become {target}")
        return tuple(Task(*pair) for pair in zip(files, targets, strict=True))
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    if source.suffix.lower() in VIDEO_SUFFIXES:
        raise DataError(
            f"{source}: nothing that latlut depends on decodes videos. Install ffmpeg and take it "
            f"apart:\n  mkdir frames && ffmpeg -i {source} frames/%06d.png\n"
            "then predict the folder frames; animated GIF, WebP and PNG files are read as they are"
        )
    is_file = out.suffix.lower() in IMAGE_SUFFIXES
    return (Task(source, out if is_file else out / _name(source, form)),)


def predict_files(
    predictor: Predictor, tasks: Sequence[Task], corrupt: Literal["fatal", "skip"] = "fatal"
) -> Iterator[tuple[Task, str | None]]:
    """Predict image after image; gives each task with None, or what was wrong with its file.

    Args:
        predictor: what judges and draws.
        tasks: files and targets.
        corrupt: whether a file that cannot be read ends it or is left out.

    Raises:
        DataError: a file that cannot be read, where that is fatal.
        LatlutError: a prediction that cannot be written.
    """
    for task in tasks:
        try:
            _predict_file(predictor, task)
        except DataError as error:
            if corrupt == "fatal":
                raise
            yield task, str(error)
        else:
            yield task, None


def _predict_file(predictor: Predictor, task: Task) -> None:
    durations_ms = _durations_ms(task.source)
    if len(durations_ms) < 2:
        picture = predictor.picture(read_image(task.source))
        _save(task, picture.save)
        return
    if predictor.form == "label-ids":
        raise DataError(f"{task.source}: an animation; label ids are written of single images")
    if task.target.suffix.lower() not in _ANIMATED:
        raise DataError(
            f"{task.source}: an animation of {len(durations_ms)} pictures, which "
            f"{task.target.name} cannot hold; write one of {', '.join(_ANIMATED)}"
        )
    with Image.open(task.source) as opened:
        try:
            pictures = (
                predictor.picture(np.asarray(frame.convert("RGB")))
                for frame in ImageSequence.Iterator(opened)
            )
            first = next(pictures)
            # Pillow goes through a PNG's pictures twice, through the others' once.
            rest = list(pictures) if task.target.suffix.lower() == ".png" else pictures

            def save(path: Path) -> None:
                first.save(path, save_all=True, append_images=rest, duration=durations_ms, loop=0)

            _save(task, save)
        except (SyntaxError, EOFError) as error:
            raise DataError(f"{task.source}: the animation is damaged: {error}") from error


def _durations_ms(path: Path) -> list[int]:
    """How long each picture of an animation is shown; none for a file with one picture."""
    if path.suffix.lower() not in _ANIMATED:
        return []
    try:
        with Image.open(path) as opened:
            if getattr(opened, "n_frames", 1) < 2:
                return []
            frames = ImageSequence.Iterator(opened)
            return [int(frame.info.get("duration") or 100) for frame in frames]
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _save(task: Task, save: Callable[[Path], None]) -> None:
    try:
        task.target.parent.mkdir(parents=True, exist_ok=True)
        save(task.target)
    except (OSError, ValueError) as error:
        raise LatlutError(f"cannot write {task.target}: {error}") from error


def _name(source: Path, form: Form) -> str:
    stem = source.stem.removesuffix("_leftImg8bit") if form == "label-ids" else source.stem
    is_animated = source.suffix.lower() in (".gif", ".webp") and form != "label-ids"
    return stem + (source.suffix.lower() if is_animated else ".png")
