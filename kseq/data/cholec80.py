"""Cholec80: videos of gallbladder operations with the phase of each frame, from its folder."""

import math
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from kseq.data.dataset import Entry
from kseq.data.videos import ROUNDING, Video, check_sampling, read_video
from kseq.errors import InputError, shorten

ENTRY = Entry(
    name="cholec80",
    task="video of an operation → phase of each frame",
    size="80 videos, 7 phases",
    source="Twinanda et al. 2017, a folder",
    licence="on request from CAMMA",
)
CLASS_NAMES = (
    "Preparation",
    "CalotTriangleDissection",
    "ClippingCutting",
    "GallbladderDissection",
    "GallbladderPackaging",
    "CleaningCoagulation",
    "GallbladderRetraction",
)
RATE = 25  # lines of an annotation for a second of video
TOLERANCE = 1  # seconds by which an annotation may be longer or shorter than its video
SPLITS = {  # the numbers of the videos that train, validate and test
    "40/40": (range(1, 41), range(0), range(41, 81)),
    "32/8/40": (range(1, 33), range(33, 41), range(41, 81)),
}
LAYOUT = "give the folder with videos/video01.mp4 … and phase_annotations/video01-phase.txt …"


@dataclass(frozen=True)
class PhaseVideo:
    """A video with a phase for each of its frames; frames are read from the file when they are asked for.

    A video of `workflow_videos` is in memory, the pair `(frames, phases)`; here that is `(v.frames(), v.labels)`.

    Attributes:
        name: "video01".
        video: the frames, to iterate over with their times.
        labels: int32 `(time,)`, the phase of each frame, an index into the class names.
    """

    name: str
    video: Video
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def frames(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Frames `start` to `stop - 1`, uint8 `(time, height, width, 3)`; those of `labels[start:stop]`.

        Raises:
            InputError: unless 0 ≤ start < stop ≤ the number of labels; if the file is damaged there.
        """
        stop = len(self) if stop is None else stop
        if not 0 <= start < stop <= len(self):
            raise InputError(f"{self.name}, frames {start} to {stop}: 0 ≤ start < stop ≤ {len(self)} is allowed")
        return self.video.frames(start, stop)


class PhaseVideos(Sequence):
    """A list of `PhaseVideo`s, each opened and checked against its annotation when it is first taken out.

    Args:
        files: for each video its path and that of its annotation.
        size: `(height, width)` of the frames.
        frame_rate: frames a second.
    """

    def __init__(self, files: Sequence[tuple[Path, Path]], size: tuple[int, int] | None, frame_rate: float):
        self.files, self.size, self.frame_rate = tuple(files), size, frame_rate
        self.opened = {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index):
        files = self.files[index]
        if isinstance(index, slice):
            return PhaseVideos(files, self.size, self.frame_rate)
        if files not in self.opened:
            self.opened[files] = _match(*files, self.size, self.frame_rate)
        return self.opened[files]

    def __repr__(self) -> str:
        return f"PhaseVideos({len(self)} at {self.frame_rate:g} fps)"


@dataclass(frozen=True)
class Cholec80:
    """The videos of a split.

    Attributes:
        train: `PhaseVideos`.
        validation: the same, for choosing a model; empty in the split 40/40.
        test: the same, for the final figures.
        class_names: the name of each phase.
        frame_rate: frames and labels a second.
        source: where the data come from.
    """

    train: PhaseVideos
    validation: PhaseVideos
    test: PhaseVideos
    class_names: tuple[str, ...]
    frame_rate: float
    source: str


def cholec80(
    root: str | os.PathLike, *, split: str = "40/40", size: tuple[int, int] | None = (224, 224), frame_rate: float = 1
) -> Cholec80:
    """Cholec80 as it is distributed: 80 videos of cholecystectomies with the phase of each frame.

        root/videos/video01.mp4                     25 frames a second
        root/phase_annotations/video01-phase.txt    "Frame", tab, "Phase"; then a line for each frame: 0, tab, name

    What else is there (tool_annotations) is not read. Videos may have been brought to another frame rate or resolution:
    line i of an annotation stands for the time i / 25 s, whatever the video has.

    Frame k of what is given here, at k / `frame_rate` seconds, is the one on screen then (see `read_video`), and its
    label that of the line at the same time. An annotation may be longer or shorter than its video by 1 second; frames
    that only one of them has are left out.

    **Splits.** "40/40": videos 1–40 train, 41–80 test (Twinanda et al.). "32/8/40": the same with 33–40 for validation.
    Others are in use (TeCNO: 40/8/32); figures from different splits, and from other frame rates or treatments of the
    borders of phases, are not comparable.

    Source: Twinanda, Shehata, Mutter, Marescaux, de Mathelin & Padoy, "EndoNet: a deep architecture for recognition
    tasks on laparoscopic videos", IEEE Transactions on Medical Imaging 36, 2017. The videos are given on request
    (http://camma.u-strasbg.fr/datasets).

    Args:
        root: the folder with both.
        split: "40/40" or "32/8/40".
        size: `(height, width)` to resize to; `None` keeps that of the files.
        frame_rate: frames a second.

    Returns:
        A `Cholec80`. Nothing but the names of the files has been read: a video is opened, and its annotation read, when
        it is taken out of its list; a frame is decoded when it is asked for. Videos that are not there are left out
        with a warning.

    Raises:
        InputError: for another split, or a bad size or frame rate; if a folder is missing or empty, one of training and
            test has no videos, or a video no annotation. When a video is taken out: if it cannot be read, a line of the
            annotation is not as above, names an unknown phase, or the lengths do not match. The message names the file,
            and the line.
    """
    root = Path(root)
    if split not in SPLITS:
        raise InputError(f"split {shorten(split)}: {', '.join(SPLITS)} are allowed")
    if frame_rate is None:
        raise InputError("frame_rate None: labels have a fixed rate; give frames a second")
    check_sampling(size, frame_rate)
    folder = root / "videos"
    if not folder.is_dir():
        raise InputError(f"folder {folder}: there is none; {LAYOUT}")
    found = {}
    for path in sorted(folder.iterdir()):
        if match := re.fullmatch(r"video(\d\d)\.mp4", path.name):
            found[int(match[1])] = path
    numbers = [number for part in SPLITS[split] for number in part]
    missing = [number for number in numbers if number not in found]
    if len(missing) == len(numbers):
        raise InputError(f"folder {folder}: no videos video01.mp4 to video80.mp4 in it; {LAYOUT}")
    files = {}
    for number in sorted(set(numbers) & set(found)):
        annotation = root / "phase_annotations" / f"video{number:02}-phase.txt"
        if not annotation.is_file():
            raise InputError(f"{annotation}: there is none for {found[number]}; {LAYOUT}")
        files[number] = (found[number], annotation)
    parts = []
    for part, name in zip(SPLITS[split], ("training", "validation", "test"), strict=True):
        parts.append(PhaseVideos([files[number] for number in part if number in files], size, frame_rate))
        if len(part) and not parts[-1]:
            raise InputError(f"folder {folder}: none of video{part[0]:02} to video{part[-1]} for {name}; {LAYOUT}")
    if missing:
        warnings.warn(
            f"{folder}: {len(numbers) - len(missing)} of 80 videos; figures on a part are not those of the literature",
            stacklevel=2,
        )
    return Cholec80(*parts, CLASS_NAMES, frame_rate, f"{ENTRY.source}; licence: {ENTRY.licence}")


def _match(path: Path, annotation: Path, size: tuple[int, int] | None, frame_rate: float) -> PhaseVideo:
    """A video and its annotation, if one is as long as the other, with the labels at its frame rate."""
    video = read_video(path, size=size, frame_rate=frame_rate)
    phases = _read(annotation)
    if video.duration is None:
        raise InputError(f"{path}: its header tells no length; convert it (ffmpeg -i old new.mp4)")
    seconds = Fraction(video.duration).limit_denominator(1_000_000)  # of the microseconds that headers hold
    if len(phases) > (seconds + TOLERANCE) * RATE:
        line = 2 + math.ceil(seconds * RATE)  # the first line is the header
        raise InputError(
            f"{annotation}, line {line}: {path.name} ends here, after {video.duration:.2f} s, the annotation after "
            f"{len(phases) / RATE:.2f} s ({TOLERANCE} s more is allowed); copy both again"
        )
    if len(phases) < (seconds - TOLERANCE) * RATE:
        raise InputError(
            f"{annotation}, line {len(phases) + 1}: the annotation ends here, after {len(phases) / RATE:.2f} s, "
            f"{path.name} after {video.duration:.2f} s ({TOLERANCE} s more is allowed); copy both again"
        )
    end = min(seconds, Fraction(len(phases), RATE))
    count = max(math.ceil((end - ROUNDING) * video.frame_rate), 1)
    lines = [math.floor((k / video.frame_rate + ROUNDING) * RATE) for k in range(count)]
    return PhaseVideo(path.stem, video, phases[lines])


def _read(path: Path) -> np.ndarray:
    """The phase of each line, int32."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise InputError(f"{path}: cannot be read ({why}); copy it again") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or lines[0].split() != ["Frame", "Phase"]:
        raise InputError(f"{path}, line 1: {shorten(lines[0] if lines else '')}; Frame, a tab, Phase belong there")
    if len(lines) == 1:
        raise InputError(f"{path}, line 2: no frames are annotated; copy it again")
    phases = np.empty(len(lines) - 1, "int32")
    indices = {name: index for index, name in enumerate(CLASS_NAMES)}
    for frame, line in enumerate(lines[1:]):
        fields = line.split()
        if len(fields) != 2 or fields[0] != str(frame):
            raise InputError(
                f"{path}, line {frame + 2}: {shorten(line)}; a line for each frame is expected, here {frame}, a tab, "
                "and the name of its phase"
            )
        if fields[1] not in indices:
            raise InputError(
                f"{path}, line {frame + 2}: phase {shorten(fields[1])}; {', '.join(CLASS_NAMES)} are allowed"
            )
        phases[frame] = indices[fields[1]]
    return phases
