"""A folder laid out as Cholec80, of small videos that are encoded here."""

import importlib
import pickle
import warnings

import keras
import numpy as np
import pytest

from kseq.data.cholec80 import CLASS_NAMES, cholec80
from kseq.errors import InputError
from tests.data.test_videos import levels, numbered, write_h264, write_video

module = importlib.import_module("kseq.data.cholec80")  # which the function of this name hides

pytest.importorskip("av", reason="PyAV is an extra")

FRAMES = 130  # of each video: 5.2 seconds
PHASES = np.repeat([0, 1, 1, 2, 6, 3], 25)[:FRAMES]  # a phase a second


def write_phases(root, number: int, phases, header="Frame\tPhase") -> None:
    lines = [header, *(f"{i}\t{CLASS_NAMES[phase]}" for i, phase in enumerate(phases))]
    (root / f"phase_annotations/video{number:02}-phase.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def root(tmp_path):
    for name in ("videos", "phase_annotations", "tool_annotations"):
        (tmp_path / name).mkdir()
    source = write_h264(tmp_path / "source.mp4", numbered(FRAMES)).read_bytes()
    for number in (1, 32, 33, 40, 41, 80):
        (tmp_path / f"videos/video{number:02}.mp4").write_bytes(source)
        write_phases(tmp_path, number, PHASES)
    (tmp_path / "videos/README.txt").write_text("not a video")
    return tmp_path


def read(root, **arguments):
    with pytest.warns(UserWarning, match=r"videos: \d+ of 80 videos; figures on a part"):
        return cholec80(root, **arguments)


@pytest.mark.parametrize(
    ("split", "expected"),
    [("40/40", ((1, 32, 33, 40), (), (41, 80))), ("32/8/40", ((1, 32), (33, 40), (41, 80)))],
)
def test_the_published_splits(root, split, expected):
    videos = read(root, split=split, size=(12, 16))
    parts = (videos.train, videos.validation, videos.test)
    assert [[video.name for video in part] for part in parts] == [[f"video{n:02}" for n in part] for part in expected]
    assert videos.class_names == CLASS_NAMES
    assert repr(videos.train) == f"PhaseVideos({len(expected[0])} at 1 fps)"
    for training, validation, testing in module.SPLITS.values():
        assert sorted([*training, *validation, *testing]) == list(range(1, 81))


@pytest.mark.parametrize("frame_rate", [1, 2, 5, 12.5, 25])
def test_frames_and_labels_are_of_the_same_time(root, frame_rate):
    video = read(root, size=(12, 16), frame_rate=frame_rate).train[0]
    count = int(np.ceil(5.2 * frame_rate - 1e-9))
    assert len(video) == count
    frames = video.frames()
    assert frames.shape == (count, 12, 16, 3)
    numbers = [int(25 * k / frame_rate + 1e-9) for k in range(count)]  # of the frames, and of the lines
    assert np.abs(levels(frames) - numbers).max() <= 1
    np.testing.assert_array_equal(video.labels, PHASES[numbers])
    assert video.labels.dtype == np.int32
    assert len(list(video.video)) == count
    np.testing.assert_array_equal(video.frames(1, 4), frames[1:4])


def test_a_video_at_another_rate_keeps_the_times_of_its_annotation(root):
    write_video(
        root / "videos/video01.mp4", 20 * numbered(6), codec="libx264", pixels="yuv420p", rate=1, options={"crf": "1"}
    )
    write_phases(root, 1, np.repeat([0, 1, 1, 2, 6, 3], 25))
    video = read(root, size=None).train[0]
    np.testing.assert_array_equal(video.labels, [0, 1, 1, 2, 6, 3])
    assert np.abs(levels(video.frames()) - 20 * np.arange(6)).max() <= 2


@pytest.mark.parametrize(("lines", "seconds"), [(FRAMES + 25, 5.2), (FRAMES - 25, 4.2), (FRAMES + 1, 5.2)])
def test_a_second_more_or_less_is_cut_off(root, lines, seconds):
    write_phases(root, 1, np.resize(PHASES, lines))
    video = read(root, frame_rate=5, size=(12, 16)).train[0]
    assert len(video) == round(5 * seconds)
    assert len(video.frames()) == len(video)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (FRAMES + 26, r"video01-phase.txt, line 132: video01.mp4 ends here, after 5.20 s, the annotation after 6.24 s"),
        (FRAMES - 26, r"video01-phase.txt, line 105: the annotation ends here, after 4.16 s, video01.mp4 after 5.20 s"),
    ],
)
def test_an_annotation_of_another_length_is_refused(root, lines, message):
    write_phases(root, 1, np.resize(PHASES, lines))
    videos = read(root)
    with pytest.raises(InputError, match=message):
        videos.train[0]
    assert len(videos.train[1]) == 6  # the others can be read


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: ''; Frame, a tab, Phase belong there"),
        ("0\tPreparation\n1\tPreparation\n", "line 1: .*; Frame, a tab, Phase belong there"),
        ("Frame\tPhase\n\n", "line 2: no frames are annotated"),
        ("Frame\tPhase\n0\tPreparation\n1\tLunch\n", "line 3: phase 'Lunch'; Preparation, CalotTriangleDissection"),
        ("Frame\tPhase\n0\tPreparation\n1\n", "line 3: '1'; a line for each frame is expected, here 1, a tab"),
        ("Frame\tPhase\n0\tPreparation\n2\tPreparation\n", "line 3: .*, here 1, a tab"),
        ("Frame\tPhase\n0\tPreparation\n\n2\tPreparation\n", "line 3: ''; .*, here 1, a tab"),
        ("Frame\tPhase\nzero\tPreparation\n", "line 2: .*, here 0, a tab"),
        ("Frame\tPhase\n0\tPreparation\tGrasper\n", "line 2: "),
    ],
)
def test_a_line_that_cannot_be_read_is_named(root, content, message):
    (root / "phase_annotations/video32-phase.txt").write_text(content)
    videos = read(root)
    with pytest.raises(InputError, match=f"video32-phase.txt, {message}"):
        videos.train[1]


def test_an_annotation_of_windows_and_one_of_bytes(root):
    path = root / "phase_annotations/video01-phase.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    np.testing.assert_array_equal(read(root, frame_rate=25).train[0].labels, PHASES)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="video01-phase.txt: cannot be read .it is no text in UTF-8"):
        read(root).train[0]


def test_a_missing_annotation(root):
    path = root / "phase_annotations/video40-phase.txt"
    path.unlink()
    with pytest.raises(InputError, match=r"video40-phase.txt: there is none for .*video40.mp4; give the folder with"):
        cholec80(root)


def test_folders_that_are_not_there_or_empty(root, tmp_path):
    with pytest.raises(InputError, match=r"videos: there is none; give the folder with videos/video01.mp4"):
        cholec80(tmp_path / "nowhere")
    for number in (41, 80):
        (root / f"videos/video{number}.mp4").unlink()
    with pytest.raises(InputError, match="none of video41 to video80 for test"):
        cholec80(root)
    for number in (1, 32, 33, 40):
        (root / f"videos/video{number:02}.mp4").unlink()
    with pytest.raises(InputError, match="videos: no videos video01.mp4 to video80.mp4 in it"):
        cholec80(root)


def test_arguments_and_ranges(root):
    for arguments, message in (
        ({"split": "50/30"}, "split '50/30': 40/40, 32/8/40 are allowed"),
        ({"frame_rate": 0}, "frame_rate 0"),
        ({"frame_rate": None}, "frame_rate None: .* give frames a second"),
        ({"size": (0, 1)}, "size"),
    ):
        with pytest.raises(InputError, match=message):
            cholec80(root, **arguments)
    video = read(root).train[0]
    for start, stop in ((-1, 2), (2, 2), (0, 7)):
        with pytest.raises(InputError, match=f"video01, frames {start} to {stop}: 0 ≤ start < stop ≤ 6 is allowed"):
            video.frames(start, stop)


def test_a_video_that_is_damaged_names_its_file(root):
    (root / "videos/video01.mp4").write_bytes(b"damaged")
    videos = read(root)
    with pytest.raises(InputError, match=r"video01.mp4: not a video, or cut short"):
        videos.train[0]


def test_all_eighty_raise_no_warning(root):
    source = (root / "videos/video01.mp4").read_bytes()
    for number in range(1, 81):
        (root / f"videos/video{number:02}.mp4").write_bytes(source)
        write_phases(root, number, PHASES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        videos = cholec80(root, split="32/8/40")
    assert [len(part) for part in (videos.train, videos.validation, videos.test)] == [32, 8, 40]


class Windows(keras.utils.PyDataset):
    """Windows of three seconds, as an app would cut them."""

    def __init__(self, videos, **arguments):
        super().__init__(**arguments)
        self.videos = videos
        self.places = [(v, start) for v in range(len(videos)) for start in range(0, len(videos[v]) - 2, 3)]

    def __len__(self):
        return len(self.places)

    def __getitem__(self, index):
        number, start = self.places[index]
        video = self.videos[number]
        return video.frames(start, start + 3)[None] / np.float32(255), video.labels[None, start : start + 3]


def test_a_model_is_fitted_on_windows_that_other_threads_read(root):
    videos = read(root, size=(12, 16))
    copy = pickle.loads(pickle.dumps(videos.train))  # as processes of workers get it
    np.testing.assert_array_equal(copy[0].frames(2, 4), videos.train[0].frames(2, 4))
    model = keras.Sequential(
        [keras.Input((3, 12, 16, 3)), keras.layers.Reshape((3, 576)), keras.layers.Dense(7), keras.layers.Softmax()]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    history = model.fit(Windows(videos.train, workers=2), verbose=0)
    assert np.isfinite(history.history["loss"][0])
