"""Videos in, videos out: frames, times, sizes, colours, and files that break off or are none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from lightning_fabric import Fabric
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from latlut.cli import main
from latlut.errors import DataError, LatlutError
from latlut.progress import Progress
from latlut.search.data.classes import Classes
from latlut.search.data.street.scenes import CLASSES as SCENE_CLASSES
from latlut.search.data.street.scenes import draw
from latlut.search.deploy import prediction_files, video
from latlut.search.deploy.predicting import Form, Predictor
from latlut.search.deploy.prediction_files import predict_files, tasks_of
from latlut.search.deploy.video import Frame, VideoReader, VideoWriter
from latlut.search.networks.model_files import ModelFacts, save_model
from latlut.search.networks.network import trainable
from latlut.spaces import Architecture, Branch, Cell

av = pytest.importorskip("av", reason='videos need the package av: pip install "latlut[video]"')

CLASSES = Classes(("dark", "bright"), ((10, 0, 0), (0, 200, 0)))
Bytes = NDArray[np.uint8]


class IsBright(nn.Module):
    """Class 1 where an image is brighter than average; keeps the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.batches.append(len(image))
        grey = image.mean(dim=1, keepdim=True)
        return torch.cat([-grey, grey], dim=1)


def predictor(form: Form = "overlay", network: nn.Module | None = None) -> Predictor:
    fabric = Fabric(accelerator="cpu", devices=1)
    return Predictor(network or IsBright(), CLASSES, fabric, form=form)


def run(source: Path, out: Path, form: Form = "overlay", corrupt: Any = "fatal") -> list[Any]:
    return list(predict_files(predictor(form), tasks_of(source, out, form), corrupt))


def scenes(count: int = 12, height: int = 64, width: int = 96) -> list[Bytes]:
    return [draw((5, 0, index), height, width)[0] for index in range(count)]


def halves(count: int = 6, height: int = 64, width: int = 96) -> list[Bytes]:
    """White at the right of a line that moves, else black."""
    frames = []
    for index in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[:, width // 4 + 4 * index :] = 255
        frames.append(frame)
    return frames


def write(
    path: Path,
    images: Sequence[Bytes],
    *,
    rate: Fraction | int = 25,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    tick_s: Fraction | None = None,
    turn: int = 0,
    options: dict[str, str] | None = None,
    format_options: dict[str, str] | None = None,
) -> Path:
    """A video made with PyAV alone. times: in ticks; else one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = images[0].shape[:2]
    time_base = {} if tick_s is None else {"time_base": tick_s}
    with av.open(str(path), "w", container_options=format_options or {}) as container:
        stream = container.add_stream(
            codec, rate=rate, width=width, height=height, options=options or {}, **time_base
        )
        stream.pix_fmt = pixels
        if turn:
            stream.set_display_rotation(turn)
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = index if times is None else times[index]
            frame.time_base = tick_s or 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class Seen(NamedTuple):
    """What is in a video, read with PyAV alone; times in seconds."""

    images: list[Bytes]
    times: list[Fraction]
    rate: Fraction | None
    codec: str
    pixels: str


def look(path: Path) -> Seen:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        images, times = [], []
        for frame in container.decode(stream):
            images.append(frame.to_ndarray(format="rgb24").copy())
            times.append(frame.pts * frame.time_base)
        context = stream.codec_context
        return Seen(images, times, stream.average_rate, context.name, str(context.pix_fmt))


def blocks(image: Bytes) -> NDArray[np.float64]:
    """Mean colours of 8x8 pixels: single pixels' colours do not survive 4:2:0."""
    height, width = image.shape[:2]
    cut = image.astype(np.float64).reshape(height // 8, 8, width // 8, 8, 3)
    return cut.mean(axis=(1, 3))


# --- from a video to its overlay ---


def test_an_overlay_has_the_frames_size_rate_and_times_of_its_source(tmp_path: Path) -> None:
    source = write(tmp_path / "drive.mp4", scenes())
    ((task, problem),) = run(source, tmp_path / "out")
    assert problem is None and task.target == tmp_path / "out" / "drive.mp4"
    before, after = look(source), look(task.target)
    assert len(after.images) == len(before.images) == 12
    assert after.images[0].shape == (64, 96, 3)
    assert after.rate == before.rate == 25
    assert after.times == before.times == [Fraction(index, 25) for index in range(12)]
    assert (after.codec, after.pixels) == ("h264", "yuv420p")
    for image, mixed in zip(before.images, after.images, strict=True):
        assert np.abs(image.astype(int) - mixed).mean() > 10
        expected = np.asarray(predictor().picture(image))
        assert np.abs(blocks(expected) - blocks(mixed)).max() < 16


def test_the_classes_colours_appear_where_the_classes_are(tmp_path: Path) -> None:
    source = write(tmp_path / "drive.mp4", halves())
    run(source, tmp_path / "out.mp4", form="colour")
    seen = look(tmp_path / "out.mp4").images
    assert len(seen) == 6
    for index, image in enumerate(seen):
        line = 24 + 4 * index
        assert np.abs(image[:, : line - 4].astype(int) - CLASSES.colours[0]).max() < 16
        assert np.abs(image[:, line + 4 :].astype(int) - CLASSES.colours[1]).max() < 16


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mov", "libx264"), ("a.avi", "mpeg4"), ("a.mkv", "libx264"), ("a.webm", "libvpx"),
     ("a.MP4", "mpeg4")],
)  # fmt: skip
def test_other_formats_are_read(tmp_path: Path, name: str, codec: str) -> None:
    source = write(tmp_path / name, scenes(8), codec=codec, rate=10)
    run(source, tmp_path / "out")
    before, after = look(source), look(tmp_path / "out" / "a.mp4")
    assert len(before.images) == len(after.images) == 8
    assert after.times == before.times
    assert after.rate == 10


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
def test_a_variable_frame_rate_stays_variable(tmp_path: Path, name: str) -> None:
    times = [0, 3000, 9000, 21000, 24000, 60300]
    source = write(tmp_path / "a.mp4", scenes(6), times=times, tick_s=Fraction(1, 90000))
    assert look(source).times == [Fraction(time, 90000) for time in times]
    run(source, tmp_path / name)
    found = look(tmp_path / name).times
    tolerance_s = Fraction(1, 1000) if name.endswith("mkv") else 0  # it counts milliseconds
    for time, expected in zip(found, look(source).times, strict=True):
        assert abs(time - expected) <= tolerance_s


def test_a_video_that_starts_late_starts_at_0(tmp_path: Path) -> None:
    source = write(tmp_path / "a.ts", scenes(5), times=range(50, 55), tick_s=Fraction(1, 25))
    before = look(source).times
    assert before[0] >= 2
    run(source, tmp_path / "out")
    assert look(tmp_path / "out" / "a.mp4").times == [time - before[0] for time in before]


@pytest.mark.parametrize(("height", "width"), [(63, 96), (64, 95), (63, 95)])
def test_an_odd_side_gets_its_last_pixels_twice(tmp_path: Path, height: int, width: int) -> None:
    source = write(tmp_path / "a.mp4", halves(3, height, width), pixels="yuv444p")
    run(source, tmp_path / "out", form="colour")
    seen = look(tmp_path / "out" / "a.mp4")
    assert len(seen.images) == 3
    for image in seen.images:
        assert image.shape == (64, 96, 3)
        assert np.abs(image[-1, :8].astype(int) - CLASSES.colours[0]).max() < 16
        assert np.abs(image[:, -1].astype(int) - CLASSES.colours[1]).max() < 16


@pytest.mark.parametrize("turn", [90, -90, 180])
def test_a_turned_video_is_predicted_and_written_upright(tmp_path: Path, turn: int) -> None:
    upright = halves(3)
    coded = [np.ascontiguousarray(np.rot90(image, -turn // 90)) for image in upright]
    source = write(tmp_path / "a.mp4", coded, turn=turn)
    run(source, tmp_path / "out", form="colour")
    seen = look(tmp_path / "out" / "a.mp4").images
    assert seen[0].shape == upright[0].shape
    assert np.abs(seen[0][:, :16].astype(int) - CLASSES.colours[0]).max() < 16
    assert np.abs(seen[0][:, 32:].astype(int) - CLASSES.colours[1]).max() < 16


def test_few_frames_go_through_the_network_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "a.mp4", scenes(12))
    pictures = []
    for pixels, batches in ((10**6, [8, 4]), (3 * 64 * 96, [3, 3, 3, 3]), (1, [1] * 12)):
        monkeypatch.setattr(prediction_files, "_BATCH_PIXELS", pixels)
        network = IsBright()
        (task,) = tasks_of(source, tmp_path / f"{pixels}.mp4", "colour")
        assert list(predict_files(predictor("colour", network), [task])) == [(task, None)]
        assert network.batches == batches
        pictures.append(look(task.target).images)
    assert all(np.array_equal(other, pictures[0]) for other in pictures[1:])


def test_the_listener_is_told_how_far_it_is(tmp_path: Path) -> None:
    told: list[Progress] = []
    names: list[str] = []

    def bar(name: str) -> Any:
        names.append(name)
        return nullcontext(told.append)

    source = write(tmp_path / "a.mp4", scenes(12))
    list(predict_files(predictor(), tasks_of(source, tmp_path / "out", "overlay"), bar=bar))
    assert names == ["a.mp4"]
    assert [(progress.done, progress.total) for progress in told] == [(8, 12), (12, 12)]


def test_a_folder_of_images_and_videos(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write(folder / "deep" / "b.mkv", scenes(3))
    Image.fromarray(scenes(1)[0]).save(folder / "a.png")
    (folder / "folder.mp4").mkdir()
    assert [problem for _, problem in run(folder, out)] == [None, None]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "a.png", "deep/b.mp4",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"b\.mkv: a video; label ids are written of single"):
        run(folder / "deep" / "b.mkv", out, form="label-ids")


# --- files that are no video, or not all of one ---


def sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 8000), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def unreadable(kind: str, path: Path) -> Path:
    if kind == "sound":
        return sound(path)
    whole = write(path, scenes(12)).read_bytes()
    contents = {"empty": b"", "noise": b"no video " * 50, "cut off": whole[: len(whole) // 2]}
    path.write_bytes(contents[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [("empty", "the file is empty"), ("noise", "not a video that can be read"),
     ("cut off", "not a video that can be read"), ("sound", "no video in it, sound alone")],
)  # fmt: skip
def test_a_file_that_is_no_video_is_named(tmp_path: Path, kind: str, message: str) -> None:
    source = unreadable(kind, tmp_path / "drive.mov")
    with pytest.raises(DataError, match=rf"drive\.mov: {message}"):
        run(source, tmp_path / "out")
    ((_, problem),) = run(source, tmp_path / "out", corrupt="skip")
    assert message in problem
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
def test_of_a_video_that_was_cut_off_the_rest_is_predicted(tmp_path: Path, name: str) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    source = write(
        tmp_path / name, scenes(40), codec=codec, format_options={"movflags": "faststart"}
    )
    contents = source.read_bytes()
    source.write_bytes(contents[: len(contents) * 6 // 10])
    with pytest.raises(DataError, match=r"a\.\w+: .* after (\d+) frames, at .* is in") as told:
        run(source, tmp_path / "out")
    count = len(look(tmp_path / "out" / "a.mp4").images)
    assert 5 < count < 38 and f" {count} frames" in str(told.value)


@pytest.mark.parametrize("is_live", [True, False])
def test_the_end_of_a_video_without_length_could_not_be_verified(
    tmp_path: Path, is_live: bool
) -> None:
    options = {"live": "1"} if is_live else {}
    source = write(tmp_path / "a.mkv", scenes(12), format_options=options)
    told: list[str] = []
    tasks = tasks_of(source, tmp_path / "out", "overlay")
    ((_, problem),) = predict_files(predictor(), tasks, tell=told.append)
    assert problem is None
    assert [("end could not be verified" in text) for text in told] == [True] * is_live


def test_a_video_of_larger_frames_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "a.mov", scenes(3))
    monkeypatch.setattr(video, "MAX_FRAME_PIXELS", 64 * 96 - 1)
    with pytest.raises(DataError, match=r"a\.mov: not one frame of it can be decoded"):
        run(source, tmp_path / "out")


def test_a_list_of_other_files_is_no_video(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", scenes(3))
    listed = tmp_path / "b.mp4"
    listed.write_text("ffconcat version 1.0\nfile a.mp4\n")
    with pytest.raises(DataError, match=r"b\.mp4: not a video that can be read"):
        run(listed, tmp_path / "out")


def test_where_decoding_fails_is_said_and_what_came_before_is_written(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mov", scenes(10), codec="png", pixels="rgb24")
    with av.open(str(source)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    contents = bytearray(source.read_bytes())
    place, size = places[6]
    contents[place : place + size] = bytes(size)
    source.write_bytes(contents)
    ((_, problem),) = run(source, tmp_path / "out", corrupt="skip")
    assert "a.mov: decoding stopped after 6 frames, at 0.20 s" in problem
    assert len(look(tmp_path / "out" / "a.mp4").images) == 6
    first = places[0][0]
    contents[first : first + size] = bytes(size)
    source.write_bytes(contents)
    with pytest.raises(DataError, match=r"a\.mov: not one frame of it can be decoded"):
        run(source, tmp_path / "none")
    assert not (tmp_path / "none").exists()


class Stopped(nn.Module):
    """Stops, as Ctrl-C does, at its second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.network = IsBright()

    def forward(self, image: Tensor) -> Tensor:
        if self.network.batches:
            raise KeyboardInterrupt
        logits: Tensor = self.network(image)
        return logits


def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    source, out = write(tmp_path / "a.mp4", scenes(12)), tmp_path / "out"
    for before in ([], [out / "a.mp4"]):
        with pytest.raises(KeyboardInterrupt):
            list(predict_files(predictor(network=Stopped()), tasks_of(source, out, "overlay")))
        assert list(out.iterdir()) == before
        run(source, out)  # what is there of an earlier run stays when the next is stopped
    assert len(look(out / "a.mp4").images) == 12


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", scenes(2))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(LatlutError, match=r"cannot write .*file/out\.mp4"):
        run(source, tmp_path / "file" / "out.mp4")


# --- reading and writing ---


def test_a_reader_says_what_it_has(tmp_path: Path) -> None:
    source = write(tmp_path / "a: b.mp4", scenes(12), rate=Fraction(30000, 1001))
    with VideoReader(source) as video:
        assert (video.size, video.expected_frames) == ((64, 96), 12)
        assert video.rate == Fraction(30000, 1001)
        frames = list(video.frames())
        assert video.problem is None
        times = [frame.ticks * video.tick_s for frame in frames]
    assert times == [index * Fraction(1001, 30000) for index in range(12)]
    assert all(frame.image.dtype == np.uint8 for frame in frames)


@pytest.mark.parametrize("has_x264", [True, False])
def test_colours_and_times_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_x264: bool
) -> None:
    if not has_x264:
        monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (240, 240, 240), (128, 64, 128)]
    images = [np.full((48, 64, 3), colour, np.uint8) for colour in colours]
    tick_s = Fraction(1, 90000)
    path = tmp_path / "a.mp4"
    with VideoWriter(path, (48, 64), Fraction(25), tick_s, Fraction(4, 3)) as writer:
        for index, image in enumerate(images):
            writer.write(Frame(image, 3600 * index))
    assert look(path).codec == ("h264" if has_x264 else "mpeg4")
    with VideoReader(path) as video:
        assert video.pixel_aspect == Fraction(4, 3)
        frames = list(video.frames())
        times = [frame.ticks * video.tick_s for frame in frames]
    assert times == [Fraction(index, 25) for index in range(5)]
    for frame, colour in zip(frames, colours, strict=True):
        assert np.abs(frame.image.astype(int) - colour).max() <= 6


# --- as it is typed ---


def test_predict_image_takes_a_video(tmp_path: Path) -> None:
    small = Architecture(
        8, 8, (Branch(16, (Cell("conv", 4), Cell("conv", 4, True), Cell("conv", 8))),),
        base_width=3, num_classes=10,
    )  # fmt: skip
    facts = ModelFacts(small, SCENE_CLASSES, "street-scenes", (64, 96))
    save_model(tmp_path / "model", trainable(small, 10), facts)
    source = write(tmp_path / "a.mp4", scenes(12))
    words = [tmp_path / "model", source, "--out", tmp_path / "out", "--accelerator", "cpu"]

    def call(*more: object) -> Any:
        return CliRunner().invoke(main, ["predict-image", *map(str, [*words, *more])])

    result = call()
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "out" / "a.mp4")
    assert "a.mp4: 100% (12 of 12)" in result.stderr
    assert len(look(tmp_path / "out" / "a.mp4").images) == 12
    assert call("--quiet").stderr == ""
    source.write_bytes(source.read_bytes()[:500])
    broken = call()
    assert broken.exit_code == 2 and "a.mp4: not a video that can be read" in broken.output
    skipped = call("--corrupt", "skip", "--json")
    assert skipped.exit_code == 0
    assert json.loads(skipped.stdout)["written"] == []
    assert "a.mp4" in json.loads(skipped.stdout)["left_out"][0]
