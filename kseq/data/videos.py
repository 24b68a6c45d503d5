"""Video files of any container and codec, read a frame at a time through PyAV."""

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from kseq.data.volumes import reason
from kseq.errors import InputError, shorten

ROUNDING = Fraction(1, 1000)  # seconds by which a timestamp may be off: Matroska rounds to whole milliseconds
MOST = 1_000  # frames a second; denser than the rounding there is nothing to tell
MISSING = (1.0, 0.01)  # seconds, and share of the length, that may lack at the end before a file counts as cut short
MARGINS = (0, 2, 20)  # seconds before a frame at which we look for one to begin decoding at; after these, the start
STILL = ("image2", "tty")  # what FFmpeg calls readers of images and text, beside those that end in "_pipe"


@dataclass(frozen=True)
class Video:
    """A video file. Iterate to read it from the beginning, as often as you like; it is never in memory as a whole.

    An iteration gives pairs of a frame, uint8 `(height, width, channels)`, and its time, in seconds after the first
    frame of the file. See `read_video` for the frame that stands for a time.

    Attributes:
        path: of the file.
        size: `(height, width)` of the frames that are given; `None` for those of the file.
        frame_rate: frames a second that are given; `None` for those of the file at their own times.
        channels: 3 (red, green, blue) or 1 (grey).
        source_size: `(height, width)` of the first frame in the file.
        source_frame_rate: frames a second in the file; with a variable rate, on average.
        duration: seconds, as the file's header tells; `None` if it does not.
        expected: the number of frames that an iteration gives if the header is right; `None` if it does not tell. For
            a progress bar, not to rely on.
        begin: the timestamp of the first frame, in seconds; `None` in a file without timestamps (AVI, raw streams),
            whose frames follow each other at `source_frame_rate`.
    """

    path: Path
    size: tuple[int, int] | None
    frame_rate: Fraction | None
    channels: int
    source_size: tuple[int, int]
    source_frame_rate: Fraction
    duration: float | None
    expected: int | None
    begin: Fraction | None

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        if self.frame_rate is not None:
            yield from self._sampled(0)
            return
        for time, frame in _decode(self, Fraction(0)):
            yield self._array(frame), float(time)

    def chunks(self, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The whole video in pieces of `length` frames, the last one shorter.

        Returns:
            Pairs of frames uint8 `(time, height, width, channels)` and their times in seconds, float64 `(time,)`.
        """
        _check_count("length", length)
        pairs = []
        for pair in self:
            pairs.append(pair)
            if len(pairs) == length:
                yield _stack(pairs)
                pairs = []
        if pairs:
            yield _stack(pairs)

    def frames(self, start: int, stop: int) -> np.ndarray:
        """Frames `start` to `stop - 1` of those that an iteration gives, without reading all that come before.

        Decoding begins at the last frame before them that the file can be entered at, or at the start if it has no
        index or no timestamps.

        Returns:
            uint8 `(time, height, width, channels)`.

        Raises:
            InputError: if the video has no `frame_rate`, so that its frames have no numbers known in advance; unless
                0 ≤ start < stop; or if the video ends before.
        """
        if self.frame_rate is None:
            raise InputError(f"{self.path}: frames by number need a fixed rate; give frame_rate to read_video")
        if not 0 <= start < stop:
            raise InputError(f"frames {start} to {stop}: 0 ≤ start < stop is allowed")
        found = []
        for image, _ in self._sampled(start):
            found.append(image)
            if len(found) == stop - start:
                return np.stack(found)
        raise InputError(f"{self.path}: ends after {start + len(found)} frames; there are none up to {stop}")

    def _sampled(self, number: int) -> Iterator[tuple[np.ndarray, float]]:
        """The frames on screen at `number / frame_rate`, `(number + 1) / frame_rate`, …"""
        held, end = None, Fraction(0)
        for time, frame in _decode(self, number / self.frame_rate):
            while held is not None and number / self.frame_rate < time - ROUNDING:
                yield self._array(held), float(number / self.frame_rate)
                number += 1
            held, end = frame, time + _length(frame, self.source_frame_rate)
        while number / self.frame_rate < end - ROUNDING:
            yield self._array(held), float(number / self.frame_rate)
            number += 1

    def _array(self, frame) -> np.ndarray:
        image = frame.to_ndarray(format="rgb24" if self.channels == 3 else "gray")
        if self.size not in (None, image.shape[:2]):
            from PIL import Image

            image = Image.fromarray(image).resize(self.size[::-1], Image.Resampling.BILINEAR)
        return np.array(image).reshape(
            *(self.size or self.source_size), self.channels
        )  # a copy: the decoder's is freed


def read_video(
    path: str | os.PathLike, *, size: tuple[int, int] | None = None, frame_rate: float | None = None, channels: int = 3
) -> Video:
    """Open a video: any container and codec that FFmpeg reads, of any length.

    **Rate.** Without `frame_rate` every frame of the file is given, at its own time. With a rate f, frames are given
    for the times t = 0, 1/f, 2/f, … after the first frame, for as long as the last frame is shown: for each t **the
    frame that is on screen at t**, the last one whose timestamp is at most t (+ 1 ms, because containers round
    timestamps). None is blended from two. So frames are left out or repeated as needed, and a variable frame rate
    becomes a constant one; an online system never sees a frame before its time.

    **Size.** Height and width are scaled each by its own factor, with the triangle filter of `ImageEncoder`; pixels
    that are not square and a camera's note that the video is to be turned are not followed. If the resolution changes
    within the file, every frame is brought to `size`; without `size` this is an error.

    **Memory.** One frame at a time, beside those that the decoder keeps.

    Args:
        path: the file. Addresses in the internet that it names, as a playlist does, are not followed.
        size: `(height, width)` to resize to; by default that of the file.
        frame_rate: frames a second, at most 1,000; by default all of the file.
        channels: 3 (red, green, blue) or 1 (grey).

    Returns:
        A `Video`.

    Raises:
        InputError: if PyAV is not installed; for a bad argument; if the file is missing, is no video (text, an image,
            sound alone), cannot be decoded, or has no frames. While it is read: if it is damaged, its timestamps go
            back, its resolution changes (without `size`), or it ends more than a second, and 1 %, before the length in
            its header (all its frames have been given then). The message names the file. What a decoder conceals is not
            noticed: H.264 with a few wrong bytes is shown with wrong blocks.
    """
    path = Path(path)
    size, frame_rate = check_sampling(size, frame_rate)
    if channels not in (1, 3):
        raise InputError(f"channels {channels}: give 1 (grey) or 3 (red, green, blue)")
    with _open(path) as container:
        stream = _stream(container, path)
        try:
            first = next(container.decode(stream), None)
        except load_av().FFmpegError as error:
            raise InputError(
                f"{path}: its video cannot be decoded ({_why(error)}); copy or convert it again"
            ) from error
        if first is None:
            raise InputError(f"{path}: a video without frames; record, copy or convert it again")
        source_frame_rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        seconds = stream.duration * stream.time_base if stream.duration else _promised(container, stream)
        if frame_rate is not None:
            expected = None if seconds is None else max(math.ceil((seconds - ROUNDING) * frame_rate), 1)
        else:
            expected = stream.frames or (None if seconds is None else max(round(seconds * source_frame_rate), 1))
        return Video(
            path,
            size,
            frame_rate,
            channels,
            source_size=(first.height, first.width),
            source_frame_rate=source_frame_rate,
            duration=None if seconds is None else float(seconds),
            expected=expected,
            begin=None
            if container.format.name == "avi"
            else _timestamp(first),  # AVI numbers frames as they are decoded
        )


def video_clips(
    path: str | os.PathLike,
    length: int,
    *,
    stride: int | None = None,
    size: tuple[int, int] | None = None,
    frame_rate: float | None = None,
    channels: int = 3,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Windows of `length` frames of a video, beginning at every `stride`-th frame; it is read once, and not kept.

    A window that the video ends in is left out (`Video.chunks` keeps the rest).

    Args:
        path: the file.
        length: frames in a window.
        stride: frames from the beginning of a window to that of the next; `length`, so that none is in two.
        size: as in `read_video`.
        frame_rate: the same.
        channels: the same.

    Returns:
        Pairs of frames uint8 `(length, height, width, channels)` and their times in seconds, float64 `(length,)`.

    Raises:
        InputError: as `read_video`; for a length or stride below 1; if the video is shorter than one window.
    """
    stride = length if stride is None else stride
    _check_count("length", length)
    _check_count("stride", stride)
    return _windows(read_video(path, size=size, frame_rate=frame_rate, channels=channels), length, stride)


def check_sampling(size, frame_rate) -> tuple[tuple[int, int] | None, Fraction | None]:
    """`size` and `frame_rate` as `read_video` takes them, or an `InputError`."""
    if size is not None:
        sizes = tuple(size) if isinstance(size, Iterable) else (size,)
        if len(sizes) != 2 or not all(isinstance(n, Integral) and n > 0 for n in sizes):
            raise InputError(f"size {shorten(size)}: give (height, width), each 1 or more")
        size = (int(sizes[0]), int(sizes[1]))
    if frame_rate is not None:
        if not (isinstance(frame_rate, Real) and 0 < frame_rate <= MOST):
            raise InputError(f"frame_rate {shorten(frame_rate)}: give a number above 0 and up to {MOST:,}")
        rounded = Fraction(frame_rate if isinstance(frame_rate, Fraction) else float(frame_rate)).limit_denominator(
            1_001_000
        )
        if not rounded:
            raise InputError(
                f"frame_rate {shorten(frame_rate)}: less than a frame in a million seconds; give a larger number"
            )
        frame_rate = rounded
    return size, frame_rate


def _windows(video: Video, length: int, stride: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    window, number = deque(maxlen=length), 0
    for number, pair in enumerate(video, 1):
        window.append(pair)
        if number >= length and (number - length) % stride == 0:
            yield _stack(window)
    if number < length:
        raise InputError(f"{video.path}: {number} frames, fewer than length {length}; give a longer video or less")


def _decode(video: Video, begin: Fraction) -> Iterator[tuple[Fraction, "av.VideoFrame"]]:  # noqa: F821
    """Frames with their times after the first of the file, from the one on screen at `begin`, or an earlier one, on."""
    with _open(video.path) as container:
        stream = _stream(container, video.path)
        stream.thread_type = "AUTO"  # several frames at once
        frames = _from(container, stream, video, begin)
        interval = 1 / video.source_frame_rate
        before, reached = -interval, Fraction(0)
        while True:
            try:
                frame, reached = next(frames, (None, reached))
            except load_av().FFmpegError as error:
                at = f"after {float(max(before, 0)):.3f} s"
                raise InputError(f"{video.path}: damaged {at} ({_why(error)}); copy or convert it again") from error
            if frame is None:
                break
            stamp = _timestamp(frame)
            time = before + interval if stamp is None or video.begin is None else stamp - video.begin
            if time < before - ROUNDING:
                raise InputError(
                    f"{video.path}: after {float(before):.3f} s the timestamps go back to {float(time):.3f} s, "
                    "as where two recordings are joined; convert it (ffmpeg -i old new.mp4)"
                )
            if video.size is None and (frame.height, frame.width) != video.source_size:
                old, new = (f"{height} × {width}" for height, width in (video.source_size, (frame.height, frame.width)))
                raise InputError(
                    f"{video.path}: after {float(max(time, 0)):.3f} s its frames change from {old} to {new}; "
                    "give size=(height, width) for all"
                )
            yield time, frame
            before = max(time, before)
        promised = _promised(container, stream)
        if promised is not None and promised - reached > max(MISSING[0], MISSING[1] * promised):
            raise InputError(
                f"{video.path}: cut short, its header tells {float(promised):.1f} s and {float(reached):.1f} s are "
                "there; copy it again"
            )


def _from(container, stream, video: Video, begin: Fraction):
    """As `_demux`, beginning at a frame that is on screen at `begin` or earlier."""
    moved = False
    for margin in MARGINS:
        if video.begin is None or begin <= margin:
            break
        moved = True
        try:
            container.seek(round((video.begin + begin - margin) / stream.time_base), stream=stream)
            frames = _demux(container, stream)
            first = next(frames, None)
        except load_av().FFmpegError:  # no index, or damaged there: the way from the start will tell
            break
        stamp = None if first is None else _timestamp(first[0])
        if stamp is not None and stamp - video.begin <= begin + ROUNDING:
            yield first
            yield from frames
            return
    if moved:
        container.seek(0)
    yield from _demux(container, stream)


def _demux(container, stream) -> Iterator[tuple["av.VideoFrame", Fraction]]:  # noqa: F821
    """Frames, with the seconds up to which the file has been read."""
    reached = zero = min(Fraction(container.start_time or 0, 1_000_000), Fraction(0))
    for packet in container.demux():  # those of all streams: the header tells the length of the longest
        if packet.pts is not None and packet.time_base:
            reached = max(reached, (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base))
        if packet.stream is stream:
            for frame in packet.decode():
                yield frame, reached - zero


def _promised(container, stream) -> Fraction | None:
    """Seconds of the whole file by its header."""
    if container.format.name == "avi" and stream.frames:  # its length is guessed from what is there of the file
        return stream.frames / Fraction(stream.average_rate or stream.guessed_rate or 25)
    return None if container.duration is None else Fraction(container.duration, 1_000_000)


def _open(path: Path):
    av = load_av()
    if not os.path.isfile(path):  # unlike Path.is_file, also False for names that cannot be
        raise InputError(f"{path}: no such file; give a video")
    try:
        # An absolute path cannot be taken for an address.
        container = av.open(str(path.absolute()), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path}: not a video, or cut short ({_why(error)}); copy or convert it again") from error
    name = container.format.name
    if name in STILL or name.endswith("_pipe"):
        container.close()
        raise InputError(f"{path}: not a video (it reads as {name}); give a video file")
    return container


def _stream(container, path: Path):
    """The first video in the file that is not the picture of a cover."""
    cover = load_av().stream.Disposition.attached_pic
    found = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not found:
        others = ", ".join(sorted({stream.type for stream in container.streams} - {"video"})) or "nothing"
        raise InputError(f"{path}: no video in it, only {others}; give a file with pictures")
    return found[0]


def _timestamp(frame) -> Fraction | None:
    return None if frame.pts is None or not frame.time_base else frame.pts * Fraction(frame.time_base)


def _length(frame, frame_rate: Fraction) -> Fraction:
    """How long a frame is shown, if the file tells, else as long as most are."""
    return frame.duration * Fraction(frame.time_base) if frame.duration and frame.time_base else 1 / frame_rate


def _stack(pairs) -> tuple[np.ndarray, np.ndarray]:
    images, times = zip(*pairs, strict=True)
    return np.stack(images), np.array(times)


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, Integral) or value < 1:
        raise InputError(f"{name} {shorten(value)}: give a whole number, 1 or more")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or reason(error)


def load_av():
    """PyAV, or how to get it."""
    try:
        import av
    except ImportError as error:
        raise InputError("av (PyAV) is not installed; pip install 'kseq[video]'") from error
    return av
