"""Videos that are encoded here, each frame with its number in its brightness."""

import pickle
import socket
import sys
import tracemalloc
import weakref
from fractions import Fraction

import numpy as np
import pytest

from kseq import data
from kseq.data import videos
from kseq.data.videos import read_video, video_clips
from kseq.errors import InputError

av = pytest.importorskip("av", reason="PyAV is an extra")

SIZE = (24, 32)
LOSSLESS = {"a.mkv": ("ffv1", "gray"), "a.mov": ("png", "rgb24"), "a.avi": ("huffyuv", "rgb24")}
UNEVEN = (0.0, 0.04, 0.08, 0.58, 0.62, 0.633, 0.833, 0.873, 1.873, 1.973)  # seconds


def numbered(count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """`count` grey frames, frame k with the brightness k."""
    return np.broadcast_to(np.arange(count, dtype="uint8")[:, None, None], (count, *size))


def write_video(path, images, times=None, *, codec="ffv1", pixels="gray", rate=25, options=None, container=None):
    """Encode uint8 images `(time, height, width)`, or with 3 channels, shown from `times` on (seconds)."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    base = Fraction(1, rate) if str(path).endswith(".avi") else Fraction(1, 90_000)
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = base
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24" if image.ndim == 3 else "gray")
            frame.pts = round((number / rate if times is None else times[number]) / base)
            frame.time_base = base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def write_h264(path, images, **arguments):
    """As cameras do: blocks, B-frames, and only every 24th frame can be entered at."""
    options = {"g": "24", "bf": "2", "crf": "1"}
    return write_video(path, images, codec="libx264", pixels="yuv420p", options=options, **arguments)


def levels(frames) -> np.ndarray:
    return np.array([round(float(frame.mean())) for frame in frames])


def shown(times, frame_rate, end) -> list[int]:
    """The rule, spelled out: the number of the last frame whose time is at most t, for t = 0, 1/f, … before `end`."""
    numbers, k = [], 0
    while k / frame_rate < end - 0.001:
        numbers.append(max(i for i, time in enumerate(times) if time <= k / frame_rate + 0.001))
        k += 1
    return numbers


@pytest.mark.parametrize("name", LOSSLESS)
def test_every_frame_of_every_container(tmp_path, name):
    codec, pixels = LOSSLESS[name]
    video = read_video(write_video(tmp_path / name, numbered(30), codec=codec, pixels=pixels))
    for _ in range(2):  # it can be read again
        frames, times = zip(*video, strict=True)
        np.testing.assert_array_equal(np.stack(frames), np.repeat(numbered(30)[..., None], 3, axis=-1))
        np.testing.assert_allclose(times, np.arange(30) / 25, atol=1e-9)
    assert (video.expected, video.source_size, video.source_frame_rate) == (30, SIZE, 25)
    assert video.duration == pytest.approx(1.2)
    assert frames[0].dtype == np.uint8
    frames[0][:] = 0  # they are the caller's own


def test_h264_in_mp4(tmp_path):
    video = read_video(write_h264(tmp_path / "a.mp4", 4 * numbered(50)), channels=1)
    frames, times = zip(*video, strict=True)
    assert np.abs(levels(frames) - 4 * np.arange(50)).max() <= 1
    np.testing.assert_allclose(times, np.arange(50) / 25, atol=1e-9)
    assert frames[0].shape == (*SIZE, 1)


def test_colours_and_grey(tmp_path):
    image = np.zeros((2, *SIZE, 3), "uint8")
    image[..., :] = (200, 50, 20)
    path = write_video(tmp_path / "a.mov", image, codec="png", pixels="rgb24")
    np.testing.assert_array_equal(next(iter(read_video(path)))[0], image[0])
    grey = next(iter(read_video(path, channels=1)))[0]
    assert np.abs(grey.astype(int) - round(0.299 * 200 + 0.587 * 50 + 0.114 * 20)).max() <= 1


@pytest.mark.parametrize("size", [(11, 20), (24, 32), (40, 32), (7, 50)])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes_change_as_those_of_images_do(tmp_path, size, channels):
    images = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3)).astype("uint8")
    path = write_video(tmp_path / "a.mov", images, codec="png", pixels="rgb24")
    whole = np.stack([frame for frame, _ in read_video(path, channels=channels)])
    encoder = data.ImageEncoder(size, channels, mean=(0.0,) * channels, std=(1.0,) * channels)
    frames = np.stack([frame for frame, _ in read_video(path, size=size, channels=channels)])
    assert frames.shape == (2, *size, channels)
    assert np.abs(frames - 255 * encoder(whole)).max() <= 1


@pytest.mark.parametrize("frame_rate", [1, 5, 10, 25, 29.97, 30, 100])
@pytest.mark.parametrize("start", [0.0, 3.0])
def test_each_time_is_given_the_frame_on_screen(tmp_path, frame_rate, start):
    constant = write_video(tmp_path / "a.mkv", numbered(30), start + np.arange(30) / 25)
    uneven = write_video(tmp_path / "b.mkv", numbered(len(UNEVEN)), start + np.array(UNEVEN))
    for path, times in ((constant, np.arange(30) / 25), (uneven, UNEVEN)):
        expected = shown(times, frame_rate, times[-1] + 0.04)
        frames, given = zip(*read_video(path, frame_rate=frame_rate), strict=True)
        np.testing.assert_array_equal(levels(frames), expected)
        np.testing.assert_allclose(given, np.arange(len(expected)) / frame_rate, atol=1e-6)


def test_numbers_of_numpy_are_numbers(tmp_path):
    path = write_video(tmp_path / "a.mkv", numbered(10))
    one = read_video(path, size=tuple(np.array([6, 8])), frame_rate=np.float32(5))
    assert (
        one
        == read_video(path, size=(6, 8), frame_rate=np.int64(5))
        == read_video(path, size=[6, 8], frame_rate=Fraction(5))
    )
    assert [frame.shape for frame, _ in one] == [(6, 8, 3)] * 2


@pytest.mark.parametrize("rate", [24, 30, 60])
def test_the_rate_of_the_file_gives_each_frame_once_although_matroska_rounds_times(tmp_path, rate):
    path = write_video(tmp_path / "a.mkv", numbered(200), rate=rate)
    frames, _ = zip(*read_video(path, frame_rate=rate), strict=True)
    np.testing.assert_array_equal(levels(frames), np.arange(200))


def test_a_variable_rate_without_fps_keeps_its_own_times(tmp_path):
    frames, times = zip(*read_video(write_video(tmp_path / "a.mkv", numbered(len(UNEVEN)), UNEVEN)), strict=True)
    np.testing.assert_array_equal(levels(frames), np.arange(len(UNEVEN)))
    np.testing.assert_allclose(times, UNEVEN, atol=1e-3)


def test_the_number_of_frames_to_expect(tmp_path):
    for name, codec, pixels in (("a.mkv", "ffv1", "gray"), ("a.mov", "png", "rgb24"), ("a.avi", "huffyuv", "rgb24")):
        path = write_video(tmp_path / name, numbered(60), codec=codec, pixels=pixels)
        for frame_rate in (None, 1, 7, 30):
            video = read_video(path, frame_rate=frame_rate)
            assert video.expected == len(list(video)), (name, frame_rate)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.h264"])
def test_frames_by_number_are_those_of_an_iteration(tmp_path, name):
    path = write_h264(tmp_path / name, numbered(150))
    video = read_video(path, frame_rate=10, channels=1)
    frames = np.stack([frame for frame, _ in video])
    assert len(frames) == 60
    assert np.abs(levels(frames) - shown(np.arange(150) / 25, 10, 6.0)).max() <= 1
    for start, stop in ((0, 1), (0, 60), (7, 9), (20, 24), (29, 30), (57, 60)):
        np.testing.assert_array_equal(video.frames(start, stop), frames[start:stop])
    with pytest.raises(InputError, match=f"{name}: ends after 60 frames; there are none up to 62"):
        video.frames(58, 62)


def test_frames_by_number_do_not_decode_what_comes_long_before(tmp_path, monkeypatch):
    path = write_h264(tmp_path / "a.mp4", numbered(250))
    decoded = []

    def counted(container, stream):
        for pair in demux(container, stream):
            decoded.append(pair[0].pts)
            yield pair

    demux = videos._demux
    monkeypatch.setattr(videos, "_demux", counted)
    video = read_video(path, frame_rate=25)
    assert np.abs(levels(video.frames(225, 227)) - (225, 226)).max() <= 1
    assert len(decoded) <= 60


def test_frames_by_number_need_a_rate_and_a_range(tmp_path):
    path = write_video(tmp_path / "a.mkv", numbered(10))
    with pytest.raises(InputError, match="a.mkv: frames by number need a fixed rate; give frame_rate"):
        read_video(path).frames(0, 2)
    for start, stop in ((-1, 2), (3, 3)):
        with pytest.raises(InputError, match=f"frames {start} to {stop}: 0 ≤ start < stop"):
            read_video(path, frame_rate=5).frames(start, stop)


def test_chunks_hold_the_whole_video(tmp_path):
    video = read_video(write_video(tmp_path / "a.mkv", numbered(50)), frame_rate=5, channels=1)
    chunks = list(video.chunks(4))
    assert [frames.shape for frames, _ in chunks] == [(4, *SIZE, 1), (4, *SIZE, 1), (2, *SIZE, 1)]
    np.testing.assert_array_equal(levels(np.concatenate([frames for frames, _ in chunks])), np.arange(0, 50, 5))
    np.testing.assert_allclose(np.concatenate([times for _, times in chunks]), np.arange(10) / 5)
    with pytest.raises(InputError, match="length 0: give a whole number"):
        next(video.chunks(0))


@pytest.mark.parametrize(("length", "stride"), [(4, None), (4, 1), (4, 3), (4, 9), (50, None)])
def test_clips_are_windows(tmp_path, length, stride):
    path = write_video(tmp_path / "a.mkv", numbered(50))
    clips = list(video_clips(path, length, stride=stride, size=(6, 8), channels=1))
    starts = np.arange(0, 50 - length + 1, stride or length)
    assert len(clips) == len(starts)
    for (frames, times), start in zip(clips, starts, strict=True):
        assert frames.shape == (length, 6, 8, 1)
        np.testing.assert_array_equal(levels(frames), np.arange(start, start + length))
        np.testing.assert_allclose(times, np.arange(start, start + length) / 25, atol=1e-9)


def test_clips_that_cannot_be_cut(tmp_path):
    path = write_video(tmp_path / "a.mkv", numbered(5))
    with pytest.raises(InputError, match="a.mkv: 5 frames, fewer than length 8"):
        list(video_clips(path, 8))
    for name, arguments in (("length", (0,)), ("stride", (4, 0)), ("length", (1.5,))):
        with pytest.raises(InputError, match=f"{name} .*: give a whole number, 1 or more"):
            video_clips(path, arguments[0], **({"stride": arguments[1]} if len(arguments) > 1 else {}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (0, 4)}, r"size \(0, 4\): give \(height, width\)"),
        ({"size": (4.5, 4)}, "size"),
        ({"size": (4,)}, "size"),
        ({"size": 64}, r"size 64: give \(height, width\)"),
        ({"frame_rate": 0}, "frame_rate 0: give a number above 0 and up to 1,000"),
        ({"frame_rate": -1.0}, "frame_rate"),
        ({"frame_rate": 1e-9}, "frame_rate 1e-09: less than a frame in a million seconds"),
        ({"frame_rate": float("nan")}, "frame_rate"),
        ({"frame_rate": 1e9}, "frame_rate"),
        ({"frame_rate": "fast"}, "frame_rate 'fast'"),
        ({"channels": 4}, "channels 4: give 1 .* or 3"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        read_video(tmp_path / "gone.mkv", **arguments)


def test_files_that_are_no_video(tmp_path):
    from PIL import Image

    contents = {"empty.mp4": b"", "noise.mp4": np.random.default_rng(0).bytes(9_000), "text.mp4": b"no video\n" * 99}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: not a video, or cut short"):
            read_video(tmp_path / name)
    (tmp_path / "lines.txt").write_text("no video\n" * 99)  # FFmpeg would show the text as a film
    Image.new("RGB", SIZE).save(tmp_path / "image.png")
    for name in ("lines.txt", "image.png"):
        with pytest.raises(InputError, match=f"{name}: not a video"):
            read_video(tmp_path / name)
    for name in ("gone.mp4", "", "https://127.0.0.1/a.mp4", 999 * "long", "a\0.mp4"):
        with pytest.raises(InputError, match="no such file; give a video"):
            read_video(tmp_path / name)


def write_sound(path, cover=False):
    with av.open(str(path), "w") as file:
        sound = file.add_stream("aac", rate=16_000)
        if cover:
            picture = file.add_stream("mjpeg", rate=1)
            picture.height, picture.width, picture.pix_fmt = *SIZE, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            file.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((*SIZE, 3), "uint8"), "rgb24")))
            file.mux(picture.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), "int16"), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        file.mux(sound.encode(frame))
        file.mux(sound.encode())
    return path


@pytest.mark.parametrize("cover", [False, True])
def test_sound_alone_also_with_a_picture_of_its_cover(tmp_path, cover):
    with pytest.raises(InputError, match="a.mp4: no video in it, only audio"):
        read_video(write_sound(tmp_path / "a.mp4", cover))


def test_no_frames(tmp_path):
    with av.open(str(tmp_path / "a.avi"), "w") as file:
        stream = file.add_stream("huffyuv", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "rgb24"
        file.start_encoding()
    with pytest.raises(InputError, match="a.avi: a video without frames"):
        read_video(tmp_path / "a.avi")


def cut(path, share=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def test_files_that_are_cut_short_give_their_frames_and_then_say_so(tmp_path):
    textured = np.random.default_rng(0).integers(0, 255, (125, *SIZE)).astype("uint8")
    paths = [
        write_video(tmp_path / "a.mkv", textured),
        write_video(tmp_path / "b.avi", textured, codec="huffyuv", pixels="rgb24"),
        write_h264(tmp_path / "c.mkv", textured),
        write_h264(tmp_path / "d.avi", textured),
        write_h264(tmp_path / "e.mp4", textured, container={"movflags": "faststart"}),
    ]
    for path in paths:
        assert len(list(read_video(path))) == 125
        seen = []
        with pytest.raises(InputError, match=rf"{path.name}: (cut short, its header tells 5.0 s|damaged after)"):
            for frame, _ in read_video(cut(path)):
                seen.append(frame)
        assert 30 < len(seen) < 100
    with pytest.raises(InputError, match=r"f.mp4: (not a video, or cut short|no video in it)"):  # its header is gone
        read_video(cut(write_h264(tmp_path / "f.mp4", textured)))


def test_a_changing_resolution_needs_a_size(tmp_path):
    write_h264(tmp_path / "one.h264", numbered(20))
    write_h264(tmp_path / "two.h264", 100 + numbered(20, (32, 24)))
    path = tmp_path / "both.h264"
    path.write_bytes((tmp_path / "one.h264").read_bytes() + (tmp_path / "two.h264").read_bytes())
    seen = []
    with pytest.raises(InputError, match=r"both.h264: after 0.800 s its frames change from 24 × 32 to 32 × 24; give"):
        for frame, _ in read_video(path):
            seen.append(frame)
    assert len(seen) == 20
    frames = np.stack([frame for frame, _ in read_video(path, size=(16, 16))])
    assert np.abs(levels(frames) - [*range(20), *range(100, 120)]).max() <= 1


def test_timestamps_that_go_back(tmp_path):
    path = write_h264(tmp_path / "a.ts", numbered(50))
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(InputError, match=r"a.ts: after 1.960 s the timestamps go back to 0.000 s, .*; convert it"):
        list(read_video(path))


def test_a_playlist_leads_nowhere(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        path = tmp_path / "a.m3u8"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(InputError, match="a.m3u8"):
            list(read_video(path))
        with pytest.raises(TimeoutError):
            server.accept()


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", numbered(5))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"PyAV\) is not installed; pip install 'kseq\[video\]'"):
        read_video(path)


def test_a_video_can_go_to_another_process(tmp_path):
    video = read_video(write_video(tmp_path / "a.mkv", numbered(20)), frame_rate=5)
    copy = pickle.loads(pickle.dumps(video))
    assert copy == video
    np.testing.assert_array_equal(copy.frames(1, 3), video.frames(1, 3))


@pytest.mark.parametrize("length", [1, 8])
def test_only_a_few_frames_of_a_long_video_are_in_memory(tmp_path, monkeypatch, length):
    path = write_video(tmp_path / "a.mkv", np.zeros((2_000, 48, 64), "uint8"))
    alive, most = set(), 0

    def watched(self, frame):
        nonlocal most
        image = array(self, frame)
        alive.add(id(image))
        weakref.finalize(image, alive.discard, id(image))
        most = max(most, len(alive))
        return image

    array = videos.Video._array
    monkeypatch.setattr(videos.Video, "_array", watched)
    read = iter(read_video(path)) if length == 1 else video_clips(path, length, stride=2)
    next(read)  # what is imported at first use
    tracemalloc.start()
    try:
        count = sum(1 for _ in read)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == (1_999 if length == 1 else 996)
    assert length <= most <= length + 2
    assert peak < 1_000_000  # of the 18 MB of all frames
