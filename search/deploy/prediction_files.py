"""Predictions of files: images, animations and videos, one by one or all below a folder.

Each file's prediction is a file of its own. However long a video is, a few frames of it are in
memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from latlut.errors import DataError, LatlutError
from latlut.files.writing import why_not_written, written_whole
from latlut.progress import Progress
from latlut.search.data.files import open_picture, read_image
from latlut.search.data.pictures import DAMAGED
from latlut.search.deploy.predicting import Form, Predictor
from latlut.search.deploy.video import (
    VIDEO_SUFFIXES,
    VIDEO_TARGET_SUFFIXES,
    Frame,
    VideoReader,
    VideoWriter,
    check_av,
)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif")
#: Formats whose files can hold several pictures, which are read and written picture by picture.
_ANIMATED = (".gif", ".webp", ".png")
#: Formats that keep every number.
_EXACT = (".png", ".tif", ".tiff", ".bmp")
#: Of all pictures of an animation together: a minute of 800x600. Pillow decodes them in seconds.
MAX_ANIMATION_PIXELS = 1 << 29
#: Of a picture that a network is given: 4096x2160. Logits of 19 classes take 80 bytes for each.
MAX_PREDICTED_PIXELS = 4096 * 2160
#: A video's frames go through the network together while they have no more pixels than this,
#: two of 1920x1080, and are no more than this.
_BATCH_PIXELS, _BATCH_FRAMES = 2 * 1920 * 1080, 8

Item = TypeVar("Item")
#: Shows how far a video is: given its name, a context whose listener is told after each batch.
ProgressBar = Callable[[str], AbstractContextManager[Callable[[Progress], None]]]


@dataclass(frozen=True)
class Task:
    """An image or video file and where its prediction goes."""

    source: Path
    target: Path

    @property
    def is_video(self) -> bool:
        """Whether the source is a video, by its name."""
        return _is_video(self.source)


def tasks_of(source: Path, out: Path, form: Form) -> tuple[Task, ...]:
    """What there is to predict in a file or in all of a folder.

    Args:
        source: an image, a video, or a folder that is looked through for both with all below it.
        out: for a folder's predictions a folder, with the same paths below; for one image or
            video a file if it has the suffix of one, else a folder.
        form: label ids are written as PNG, pictures too, animations in their own format, videos
            as MP4.

    Raises:
        DataError: nothing there, neither image nor video, two whose predictions would have one
            name, a prediction in the place of its source or in a file that cannot hold it.
    """
    if source.is_dir():
        inside = out.resolve()
        files = [
            path
            for path in sorted(source.rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES
            and path.is_file()
            and not path.name.startswith(".")
            and inside not in path.resolve().parents
        ]
        if not files:
            raise DataError(
                f"{source}: no image and no video in it; read are "
                f"{', '.join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)}"
            )
        targets = [out / path.relative_to(source).parent / _name(path, form) for path in files]
        for number, target in enumerate(targets):
            if target in targets[:number]:
                other = files[targets.index(target)]
                raise DataError(f"{other} and {files[number]} would both become {target}")
        return tuple(Task(*pair) for pair in zip(files, targets, strict=True))
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    suffix, is_video = out.suffix.lower(), _is_video(source)
    is_file = suffix in IMAGE_SUFFIXES + VIDEO_SUFFIXES
    fitting = VIDEO_TARGET_SUFFIXES if is_video else IMAGE_SUFFIXES
    if is_file and suffix not in fitting:
        raise DataError(
            f"{source}: {'a video' if is_video else 'an image'}, which is not written as "
            f"{out.name}; expected a folder, or a file with one of {', '.join(fitting)}"
        )
    task = Task(source, out if is_file else out / _name(source, form))
    if task.target.resolve() == source.resolve():
        raise DataError(
            f"{source}: would be written over by its own prediction; choose another out"
        )
    return (task,)


def predict_files(
    predictor: Predictor,
    tasks: Sequence[Task],
    corrupt: Literal["fatal", "skip"] = "fatal",
    bar: ProgressBar | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[tuple[Task, str | None]]:
    """Predict file after file; gives each task with None, or what was wrong with its file.

    Args:
        predictor: what judges and draws.
        tasks: files and targets.
        corrupt: whether a file that cannot be read ends it or is left out.
        bar: shows how far each video is.
        tell: is given remarks, such as that the end of a video could not be verified.

    Raises:
        DataError: a file that cannot be read, where that is fatal; of a video that breaks off,
            what came before is written. Missing support for videos is told before anything else.
        LatlutError: a prediction that cannot be written.
    """
    videos = [task.source for task in tasks if task.is_video]
    if videos and corrupt == "fatal":
        check_av(videos[0])
    for task in tasks:
        try:
            if task.is_video:
                if remark := _predict_video(predictor, task, bar or _no_bar):
                    (tell or _ignored)(remark)
            else:
                _predict_image(predictor, task)
        except DataError as error:
            if corrupt == "fatal":
                raise
            yield task, str(error)
        else:
            yield task, None


def _predict_video(predictor: Predictor, task: Task, bar: ProgressBar) -> str:
    """Write the prediction; what is to be said of the video, or nothing."""
    if predictor.form == "label-ids":
        raise DataError(f"{task.source}: a video; label ids are written of single images")
    with VideoReader(task.source) as video, bar(task.source.name) as listener:
        pixels, done, says_its_length = video.size[0] * video.size[1], 0, video.says_its_length
        together = max(1, min(_BATCH_FRAMES, _BATCH_PIXELS // pixels))
        with (
            written_whole(task.target) as temporary,
            VideoWriter(
                temporary, video.size, video.rate, video.tick_s, video.pixel_aspect
            ) as writer,
        ):
            for frames in _batches(video.frames(), together):
                labels = predictor.batch_labels([frame.image for frame in frames])
                for frame, found in zip(frames, labels, strict=True):
                    picture = predictor.drawn_over(frame.image, found)
                    writer.write(Frame(np.asarray(picture), frame.ticks))
                done += len(frames)
                if video.expected_frames:
                    listener(Progress(done, max(done, video.expected_frames), 0, "", None))
    if video.problem is not None:
        raise DataError(f"{video.problem}; what came before is in {task.target}")
    if says_its_length:
        return ""
    return (
        f"{task.source}: the file does not say how long the video is, so that its end could not"
        " be verified"
    )


def _batches(items: Iterable[Item], count: int) -> Iterator[list[Item]]:
    left = iter(items)
    while batch := list(islice(left, count)):
        yield batch


def _ignored(_: str) -> None:
    pass


def _no_bar(_: str) -> AbstractContextManager[Callable[[Progress], None]]:
    return nullcontext(lambda progress: None)


def _predict_image(predictor: Predictor, task: Task) -> None:
    durations_ms = _durations_ms(task.source)
    if len(durations_ms) < 2:
        if predictor.form == "label-ids" and task.target.suffix.lower() not in _EXACT:
            raise LatlutError(f"{task.target}: compression would change label ids; write a .png")
        picture = predictor.picture(_checked_size(read_image(task.source), task.source))
        _save(task, picture.save)
        return
    if predictor.form == "label-ids":
        raise DataError(f"{task.source}: an animation; label ids are written of single images")
    if task.target.suffix.lower() not in _ANIMATED:
        raise DataError(
            f"{task.source}: an animation of {len(durations_ms)} pictures, which "
            f"{task.target.name} cannot hold; write one of {', '.join(_ANIMATED)}"
        )
    with open_picture(task.source) as opened:
        pictures = map(predictor.picture, _frames(opened, task.source))
        first = next(pictures)
        # Pillow goes through a PNG's pictures twice, through the others' once.
        rest = list(pictures) if task.target.suffix.lower() == ".png" else pictures

        def save(path: Path) -> None:
            first.save(path, save_all=True, append_images=rest, duration=durations_ms, loop=0)

        _save(task, save)


def _frames(opened: Image.Image, path: Path) -> Iterator[NDArray[np.uint8]]:
    """(H, W, 3) uint8 of each picture of an animation."""
    pictures = ImageSequence.Iterator(opened)
    while True:
        try:
            picture = next(pictures, None)
            image = None if picture is None else _flat(picture)
        except DAMAGED as error:
            raise DataError(f"{path}: the animation is damaged: {error}") from error
        if image is None:
            return
        yield _checked_size(image, path)


def _checked_size(image: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """The image, if a network can take it in a usual memory."""
    height, width = image.shape[:2]
    if height * width > MAX_PREDICTED_PIXELS:
        raise DataError(
            f"{path}: {height}x{width} pixels, a network is given {MAX_PREDICTED_PIXELS} at most: "
            "scale it or cut it into parts"
        )
    return image


def _flat(frame: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of one picture of an animation; on black where it is see-through."""
    with_alpha = frame.convert("RGBA")
    black = Image.new("RGBA", with_alpha.size, (0, 0, 0, 255))
    return np.asarray(Image.alpha_composite(black, with_alpha).convert("RGB"))


def _durations_ms(path: Path) -> list[int]:
    """How long each picture of an animation is shown; none for a file with one picture."""
    if path.suffix.lower() not in _ANIMATED:
        return []
    with open_picture(path) as opened:
        width, height = opened.size
        try:
            count = getattr(opened, "n_frames", 1)
            durations_ms = (
                [int(frame.info.get("duration") or 100) for frame in ImageSequence.Iterator(opened)]
                if 1 < count <= MAX_ANIMATION_PIXELS // (width * height)
                else []
            )
        except DAMAGED as error:
            raise DataError(f"{path}: cannot be read: {error}") from error
    if count > 1 and not durations_ms:
        raise DataError(
            f"{path}: an animation of {count} pictures of {height}x{width} pixels, expected "
            f"{MAX_ANIMATION_PIXELS} pixels in all at most: write each to a file"
        )
    return durations_ms


def _save(task: Task, save: Callable[[Path], None]) -> None:
    if task.target.suffix.lower() not in Image.registered_extensions():
        raise LatlutError(f"cannot write {task.target}: {task.target.suffix} is no image format")
    try:
        with written_whole(task.target) as temporary:
            save(temporary)
    except OSError as error:
        raise LatlutError(f"cannot write {task.target}: {why_not_written(error)}") from error
    except ValueError as error:
        raise LatlutError(f"cannot write {task.target}: {error}") from error


def _is_video(source: Path) -> bool:
    return source.suffix.lower() in VIDEO_SUFFIXES


def _name(source: Path, form: Form) -> str:
    if _is_video(source):
        return f"{source.stem}.mp4"
    stem = source.stem.removesuffix("_leftImg8bit") if form == "label-ids" else source.stem
    is_animated = source.suffix.lower() in (".gif", ".webp") and form != "label-ids"
    return stem + (source.suffix.lower() if is_animated else ".png")
