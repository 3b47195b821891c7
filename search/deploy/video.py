"""Video files: decoded frame by frame, and encoded with the times that the frames came with.

FFmpeg decodes and encodes, through PyAV (the package av). That is an optional dependency: it is
imported where a video is opened, and ``check_av`` says what to do where it is missing.

Symbols: H, W pixels of a frame as it is shown, turned as the file says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from latlut.errors import DataError
from latlut.files.reading import check_file

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.error import FFmpegError
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: What is read as a video. The formats, not the names, decide what FFmpeg makes of them.
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts",
)  # fmt: skip
#: What a video is written as: formats that hold H.264 with frames at any time.
VIDEO_TARGET_SUFFIXES = (".mp4", ".mov", ".mkv")

#: Of a frame: 4096x2160.
MAX_FRAME_PIXELS = 4096 * 2160
#: Of a file: days of film.
MAX_FILE_BYTES = 1 << 40
#: A file is what it is: no list of other files, no address, no other format than those above.
_OPENING = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpeg,mpegvideo,asf,flv,mpegts",
}
#: Where a file does not say how many frames it shows a second.
_USUAL_RATE = Fraction(25)
#: Ticks a second that MPEG-4 Part 2 can count, and that 24, 25, 30 and 29.97 frames divide.
_MPEG4_TICKS = 60_000
#: BT.709 in each of FFmpeg's lists: of matrices, primaries and transfer curves.
_BT709 = 1
#: A tag of a stream in Matroska: hours, minutes, seconds.
_DURATION = re.compile(r"([0-9]{1,4}):([0-9]{2}):([0-9]{2}(?:\.[0-9]{1,9})?)")
#: PyAV tells times of a whole file in these seconds.
_CONTAINER_TICK_S = Fraction(1, 1_000_000)


@dataclass(frozen=True)
class Frame:
    """A frame of a video."""

    image: NDArray[np.uint8]
    """(H, W, 3) uint8 RGB."""
    ticks: int
    """When it is shown, in the video's ``tick_s`` since its start."""


def check_av(path: Path) -> None:
    """Check that the package av is there, which reads videos.

    Raises:
        DataError: it is not, or cannot be loaded; the error says what to do with ``path``.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise DataError(
            f"{path}: videos are read with the package av, which cannot be imported ({error}):\n"
            '  pip install "latlut[video]"\n'
            "or take it apart with ffmpeg, and predict the folder:\n"
            f"  mkdir frames && ffmpeg -i {path} frames/%06d.png"
        ) from error


class VideoReader:
    """An opened video: a context that closes it, and its frames from the first to the last.

    Of several video streams the first is read; a cover picture is none. Frames are turned upright
    where the file says how (in quarters of a turn), and brought to the first one's size.

    Args:
        path: the file.

    Attributes:
        path: the file.
        size: (H, W) of all frames.
        rate: frames a second, the mean where it varies.
        tick_s: seconds of a tick, the unit of the frames' times.
        pixel_aspect: width over height of a pixel as it is shown.
        expected_frames: how many the file announces, or about how many fit into its length;
            0 where it says neither.
        problem: once all frames were given: why they ended before the video does, else None.

    Raises:
        DataError: the package av is missing; no such file, no video, or not one frame of it can
            be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self._container, self._stream = _opened(path)
        from av.video.reformatter import VideoReformatter

        stream = self._stream
        self.rate = stream.average_rate or stream.guessed_rate or _USUAL_RATE
        self.tick_s = stream.time_base or 1 / self.rate
        start_s = max(0, self._container.start_time or 0) * _CONTAINER_TICK_S
        self._start = round(start_s / self.tick_s)
        self._coded_size: tuple[int, int] | None = None
        self._is_on_its_side = False
        self._converter = VideoReformatter()
        self._frames = self._decoded()
        first = next(self._frames, None)
        if first is None:
            self._container.close()
            raise DataError(self.problem or f"{path}: not one frame in it")
        self._first = first
        self.size = (first.image.shape[0], first.image.shape[1])
        self.pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
        if self._is_on_its_side:
            self.pixel_aspect = 1 / self.pixel_aspect
        length_s = self._length_s()
        self.expected_frames = stream.frames or (round(length_s * self.rate) if length_s else 0)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def frames(self) -> Iterator[Frame]:
        """The frames, once, in the order in which they are shown; times always increase.

        Where decoding fails they end, and ``problem`` says why.
        """
        yield self._first
        yield from self._frames

    def _decoded(self) -> Iterator[Frame]:
        from av.error import FFmpegError

        step = max(1, round(1 / (self.rate * self.tick_s)))
        count, ticks, end = 0, 0, 0
        try:
            for packet in self._container.demux(self._stream):
                if packet.pts is not None:
                    end = max(end, packet.pts - self._start + (packet.duration or step))
                for decoded in packet.decode():
                    following = ticks + step if count else 0
                    given = following if decoded.pts is None else decoded.pts - self._start
                    ticks = max(given, ticks + 1) if count else given
                    count += 1
                    yield Frame(self._image(decoded), ticks)
        except FFmpegError as error:
            where = (
                f"decoding stopped after {count} frames, at {float(ticks * self.tick_s):.2f} s"
                if count
                else "not one frame of it can be decoded"
            )
            self.problem = f"{self.path}: {where} ({_reason(error)})"
            return
        self.problem = self._shortfall(count, end, 2 * step)

    def _image(self, decoded: VideoFrame) -> NDArray[np.uint8]:
        """(H, W, 3) RGB, upright."""
        if self._coded_size is None:
            self._coded_size = (decoded.height, decoded.width)
            self._is_on_its_side = _quarter_turns(decoded) % 2 == 1
        height, width = self._coded_size
        rgb = self._converter.reformat(decoded, width, height, "rgb24").to_ndarray()
        turned = np.rot90(rgb, _quarter_turns(decoded))
        return np.ascontiguousarray(turned, dtype=np.uint8)

    def _length_s(self) -> Fraction | None:
        """How long the video says it is."""
        if self._stream.duration:
            return self._stream.duration * self.tick_s
        if self._container.duration:
            return self._container.duration * _CONTAINER_TICK_S
        return None

    @property
    def says_its_length(self) -> bool:
        """Whether the file says how long the video is, so that a cut is noticed."""
        return self._announced() is not None

    def _announced(self) -> int | None:
        """The length of the video that is read, in ticks; None where the file does not say it.

        Matroska says it in a tag of the stream, or for the file as a whole, where sound may go on
        longer.
        """
        if self._stream.duration:
            return int(self._stream.duration)
        match = _DURATION.fullmatch(self._stream.metadata.get("DURATION", ""))
        if match is not None:
            hours, minutes, seconds = match.groups()
            return round((3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)) / self.tick_s)
        streams = self._container.streams
        if self._container.duration and len(streams) == len(streams.video):
            return round(self._container.duration * _CONTAINER_TICK_S / self.tick_s)
        return None

    def _shortfall(self, count: int, end: int, slack: int) -> str | None:
        """What to say of a video that was cut off: it may well decode without an error.

        What a file says of its length is a little off now and then, and sound may go on longer;
        so only the length of the video itself counts, and only if a fiftieth of it is missing.
        """
        announced = self._announced()
        if not count or not announced or announced - end <= max(slack, announced // 50):
            return None
        return (
            f"{self.path}: ends after {count} frames, at {float(end * self.tick_s):.2f} s of "
            f"{float(announced * self.tick_s):.2f} s: it was cut off"
        )


class VideoWriter:
    """Encodes frames into a new file: a context that ends and closes it.

    H.264 where FFmpeg has libx264, else MPEG-4 Part 2; 4:2:0, BT.709. That needs even sides: an
    odd one gets its last row or column of pixels twice. No sound.

    Args:
        path: the file; its suffix says the format, one of ``VIDEO_TARGET_SUFFIXES``.
        size: (H, W) of all frames.
        rate: frames a second, the mean where it varies.
        tick_s: seconds of a tick, the unit of the frames' times.
        pixel_aspect: width over height of a pixel as it is shown.

    Raises:
        OSError: the file cannot be written, or a frame not encoded; from all methods.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        rate: Fraction,
        tick_s: Fraction,
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        import av
        from av.error import FFmpegError
        from av.video.reformatter import ColorRange, VideoReformatter

        self._tick_s = tick_s
        self._padding = (size[0] % 2, size[1] % 2)
        self._converter = VideoReformatter()
        has_x264 = "libx264" in av.codecs_available
        codec: Literal["libx264", "mpeg4"] = "libx264" if has_x264 else "mpeg4"
        # MPEG-4 Part 2 has no quality to ask for, only bounds of the quantiser; its default rate
        # of 200 kbit/s would blur everything.
        options = {"crf": "18", "preset": "veryfast"} if has_x264 else {"qmin": "2", "qmax": "4"}
        if not has_x264 and tick_s.denominator > 65535:
            tick_s = Fraction(1, _MPEG4_TICKS)
        try:
            self._container = av.open(f"file:{path}", "w")
            self._stream = self._container.add_stream(
                codec,
                rate=rate,
                options=options,
                height=size[0] + self._padding[0],
                width=size[1] + self._padding[1],
                time_base=tick_s,
            )
            self._stream.pix_fmt = "yuv420p"
            self._stream.sample_aspect_ratio = pixel_aspect
            self._stream.colorspace = _BT709
            self._stream.color_primaries = _BT709
            self._stream.color_trc = _BT709
            self._stream.color_range = ColorRange.MPEG
        except FFmpegError as error:
            raise OSError(_reason(error)) from error

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        from av.error import FFmpegError

        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
        except FFmpegError as failure:
            if kind is None:
                raise OSError(_reason(failure)) from failure

    def write(self, frame: Frame) -> None:
        """Add a frame; its time is after that of the frame before."""
        from av.error import FFmpegError
        from av.video.frame import VideoFrame
        from av.video.reformatter import ColorRange, Colorspace

        image = frame.image
        if any(self._padding):
            image = np.pad(image, [(0, self._padding[0]), (0, self._padding[1]), (0, 0)], "edge")
        encoded = self._converter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
        encoded.pts, encoded.time_base = frame.ticks, self._tick_s
        try:
            self._container.mux(self._stream.encode(encoded))
        except FFmpegError as error:
            raise OSError(_reason(error)) from error


def _opened(path: Path) -> tuple[InputContainer, VideoStream]:
    """The file and the video stream in it that is read."""
    check_av(path)
    import av
    from av.error import FFmpegError
    from av.stream import Disposition

    try:
        if check_file(path, MAX_FILE_BYTES, DataError).st_size == 0:
            raise DataError(f"{path}: the file is empty")
        # With its scheme, so that a colon in a name is not taken for one; tags of files are in
        # all kinds of encodings, and not needed.
        container = av.open(f"file:{path}", options=_OPENING, metadata_errors="ignore")
    except FFmpegError as error:
        raise DataError(f"{path}: not a video that can be read ({_reason(error)})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    moving = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    if moving and moving[0].codec_context is not None:
        # FFmpeg's decoders check it for each frame, whose size may change in the middle.
        moving[0].codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
        return container, moving[0]
    has_sound = bool(container.streams.audio)
    container.close()
    if moving:
        raise DataError(f"{path}: the installed av has no decoder for this video")
    raise DataError(f"{path}: no video in it" + (", sound alone" if has_sound else ""))


def _quarter_turns(decoded: VideoFrame) -> int:
    """How often a frame has to be turned left by 90 degrees to be upright; 0 to 3."""
    return round(decoded.rotation / 90) % 4


def _reason(error: FFmpegError) -> str:
    return f"ffmpeg: {error.strerror or error}"
