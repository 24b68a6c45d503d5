"""What is written is read again to the last bit."""

import numpy as np
import pytest

from kseq.data import read_video, write_video
from kseq.errors import InputError

pytest.importorskip("av", reason="PyAV is an extra")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("rate", [1, 29.97, 0.5])
def test_the_frames_come_back(tmp_path, channels, rate):
    frames = np.random.default_rng(0).integers(0, 256, (5, 31, 34, channels), "uint8")  # of all grey values
    write_video(tmp_path / "a.mp4", frames, rate)
    found, times = zip(*read_video(tmp_path / "a.mp4", channels=channels), strict=True)
    assert (np.stack(found) == frames).all()
    assert times == pytest.approx(np.arange(5) / rate, rel=1e-4)
    at_its_rate = list(read_video(tmp_path / "a.mp4", frame_rate=rate))
    assert len(at_its_rate) == 5  # the last frame is shown as long as the others


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path):
    (tmp_path / "a.mkv").write_bytes(b"before")
    with pytest.raises(InputError, match=r"frames float64 of shape \(2, 8, 8, 1\): give uint8"):
        write_video(tmp_path / "a.mkv", np.zeros((2, 8, 8, 1)), 1)
    assert (tmp_path / "a.mkv").read_bytes() == b"before"
    write_video(tmp_path / "a.mkv", np.zeros((2, 8, 8, 1), "uint8"), 1)
    assert len(list(read_video(tmp_path / "a.mkv"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


@pytest.mark.parametrize(
    ("name", "shape", "rate", "message"),
    [
        ("a.png", (2, 8, 8, 1), 1, "path .*a.png: give a name that ends in"),
        ("a.mp4", (2, 8, 8), 1, r"frames uint8 of shape \(2, 8, 8\)"),
        ("a.mp4", (2, 8, 8, 4), 1, "1 or 3"),
        ("a.mp4", (0, 8, 8, 1), 1, "frames"),
        ("a.mp4", (2, 8, 8, 1), 0, "frame_rate 0: give frames a second"),
        ("a.mp4", (2, 8, 8, 1), float("nan"), "frame_rate nan"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, shape, rate, message):
    with pytest.raises(InputError, match=message):
        write_video(tmp_path / name, np.zeros(shape, "uint8"), rate)
    assert not list(tmp_path.iterdir())
