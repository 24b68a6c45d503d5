"""Videos as files that give back every pixel."""

import os
from fractions import Fraction
from numbers import Real
from pathlib import Path

import numpy as np

from kseq.atomic import atomic_file
from kseq.data.videos import load_av
from kseq.errors import InputError, shorten

FULL_RANGE = 2  # FFmpeg's number for grey values from 0 to 255; without it they are squeezed into 16 to 235


def write_video(path: str | os.PathLike, frames: np.ndarray, frame_rate: float) -> None:
    """Write frames as H.264 without loss: `read_video` gives the same pixels, at the times 0, 1/frame_rate, ….

    Args:
        path: the file, `.mp4`, `.mkv` or `.mov`; one that is there is replaced when the new one is complete.
        frames: uint8 `(time, height, width, channels)`, channels 1 (grey) or 3 (red, green, blue).
        frame_rate: frames a second.

    Raises:
        InputError: if PyAV is not installed, or for another file, other frames or another rate.
    """
    path, frames = Path(path), np.asarray(frames)
    if path.suffix not in (".mp4", ".mkv", ".mov"):
        raise InputError(f"path {path}: give a name that ends in .mp4, .mkv or .mov")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (1, 3) or 0 in frames.shape:
        raise InputError(f"frames {frames.dtype} of shape {frames.shape}: give uint8 (time, height, width, 1 or 3)")
    if not (isinstance(frame_rate, Real) and 0.001 <= frame_rate <= 1000):
        raise InputError(f"frame_rate {shorten(frame_rate)}: give frames a second, 0.001 to 1,000")
    rate = Fraction(float(frame_rate)).limit_denominator(1001)
    av, grey = load_av(), frames.shape[-1] == 1
    with atomic_file(path) as temporary, av.open(str(temporary), "w") as file:
        stream = file.add_stream("libx264" if grey else "libx264rgb", rate=rate, options={"qp": "0"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "gray" if grey else "rgb24"
        stream.codec_context.color_range = FULL_RANGE
        for number, image in enumerate(frames):
            image = np.ascontiguousarray(image[..., 0] if grey else image)
            frame = av.VideoFrame.from_ndarray(image, stream.pix_fmt)
            frame.pts, frame.time_base = number, 1 / rate
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
