"""Export of taggers of videos: clips, camera frames and encoded frames in the graph, and phases from files."""

import io
import itertools
import json
import os
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kseq
from kseq import cli, saving
from kseq.data import ImageEncoder, read_video
from kseq.errors import InputError, KseqError
from kseq.export import export, predict
from kseq.models import VideoTagger
from tests.conftest import tensorflow_only, torch_only
from tests.numpy_initializers import numpy_initializers

av = pytest.importorskip("av", reason="PyAV is an extra")

from tests.data.test_videos import cut, write_h264, write_sound  # noqa: E402

SIZE = (6, 8)
CLASSES = ["preparation", "dissection", "clipping"]
VIDEO = {"size": SIZE, "channels": 3, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "frame_rate": 5}
CARD = {"task": "video phases", "video": VIDEO, "class_names": CLASSES}
ENCODER = ImageEncoder(SIZE, 3, VIDEO["mean"], VIDEO["std"])


def tagger(**options) -> keras.Model:
    random = np.random.default_rng(5)
    settings = {"encoder": keras.layers.Flatten(), "units": 4, "depth": 2} | options
    with numpy_initializers():
        model = VideoTagger((*SIZE, 3), 3, **settings)
    model.set_weights([random.normal(size=w.shape, scale=0.5) for w in model.get_weights()])
    return model


def probabilities(model: keras.Model, frames: np.ndarray) -> np.ndarray:
    """What the model says to whole clips of uint8 frames `(batch, time, height, width, 3)`."""
    encoded = ENCODER(frames.reshape(-1, *frames.shape[2:])).reshape(*frames.shape[:2], *SIZE, 3)
    answer = model.predict(encoded, verbose=0)
    return keras.ops.convert_to_numpy(keras.ops.softmax(answer["logits"] if isinstance(answer, dict) else answer))


def intervals(model: keras.Model, path) -> list[dict]:
    """The phases of a file, from all of its frames at once."""
    frames = np.stack([frame for frame, _ in read_video(path, size=SIZE, frame_rate=5)])
    (shares,) = probabilities(model, frames[None])
    found, first = [], 0
    for phase, run in itertools.groupby(shares.argmax(axis=1)):
        last = first + len(list(run))
        found.append(
            {
                "start": first / 5,
                "end": last / 5,
                "phase": CLASSES[phase],
                "probability": pytest.approx(shares[first:last, phase].mean(), abs=1e-5),
            }
        )
        first = last
    return found


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tagger of this backend with a second head: the model and the folder of its file."""
    model, folder = tagger(remaining_duration=True), tmp_path_factory.mktemp("saved")
    saving.save(model, folder / "model.keras", CARD)
    return model, folder


@pytest.fixture(scope="module")
def exported(saved):
    """The SavedModel of the same, and the record."""
    return export(saved[1] / "model.keras")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two videos of 12 s and one that breaks off in the middle, all in a folder."""
    folder, random = tmp_path_factory.mktemp("videos"), np.random.default_rng(0)
    for name in ("a.mp4", "b.mp4", "broken.mp4"):
        seconds = random.integers(0, 256, (12, 3, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
        images = seconds.repeat(25, axis=0).astype("uint8")
        write_h264(folder / name, images, container={"movflags": "faststart"})
    cut(folder / "broken.mp4")
    return folder


def shown(monkeypatch, capfd, *arguments: str) -> tuple[str, str, int]:
    """What the command prints on standard output and standard error, in this process, and how it exits."""
    monkeypatch.setenv("KERAS_BACKEND", os.environ["KERAS_BACKEND"])
    monkeypatch.setattr(sys, "argv", ["kseq", "predict", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return *capfd.readouterr(), caught.value.code or 0


def test_phases_of_a_file_from_a_run(saved, videos, monkeypatch, capfd):
    model, folder = saved
    monkeypatch.chdir(videos)
    out, err, code = shown(monkeypatch, capfd, str(folder), "a.mp4", "b.mp4", "--json")
    assert (err, code) == ("", 0)
    expected = [intervals(model, videos / name) for name in ("a.mp4", "b.mp4")]
    assert json.loads(out) == [
        {"video": name, "intervals": phases, "error": None}
        for name, phases in zip(("a.mp4", "b.mp4"), expected, strict=True)
    ]
    assert min(map(len, expected)) > 2
    assert expected[0][-1]["end"] == 12
    out, err, code = shown(monkeypatch, capfd, str(folder), "a.mp4")
    assert (err, code) == ("", 0)
    assert "a.mp4" in out
    for phase in expected[0]:
        seconds = [f"0:00:{phase[end]:05.2f}" for end in ("start", "end")]
        assert any(all(part in line for part in (*seconds, phase["phase"])) for line in out.splitlines()), out


@tensorflow_only
def test_phases_of_a_file_from_its_export(saved, exported, videos, monkeypatch, capfd):
    out, err, code = shown(monkeypatch, capfd, str(exported[0]), str(videos / "a.mp4"), "--json")
    assert (err, code) == ("", 0)
    assert json.loads(out)[0]["intervals"] == intervals(saved[0], videos / "a.mp4")


@torch_only
def test_what_was_read_of_a_broken_file_is_told_before_the_error(saved, videos, monkeypatch, capfd):
    model, folder = saved
    path = str(videos / "broken.mp4")
    out, err, code = shown(monkeypatch, capfd, str(folder), path, str(videos / "a.mp4"), "--json")
    broken, whole = json.loads(out)
    assert broken["error"].startswith(f"{path}: ")
    assert "cut short" in broken["error"] or "damaged" in broken["error"]
    assert (err, code) == (f"error: {broken['error']}\n", 2)
    assert 3 < broken["intervals"][-1]["end"] < 10
    assert (whole["intervals"], whole["error"]) == (intervals(model, videos / "a.mp4"), None)
    out, err, code = shown(monkeypatch, capfd, str(folder), path, path)
    assert (err, code) == (2 * f"error: {broken['error']}\n", 2)
    assert broken["intervals"][0]["phase"] in out


@torch_only
def test_one_frame_is_in_memory_at_a_time(saved, videos):
    """And the reader is asked for no frame before the model has answered the one before."""
    alive, most, seen = set(), 0, []

    def watched(frames, count, path):
        nonlocal most
        for frame, time in frames:
            alive.add(id(frame))
            weakref.finalize(frame, alive.discard, id(frame))
            most = max(most, len(alive))
            yield frame, time
            seen.append((count, path))

    given = str(videos / "a.mp4")
    (answer,) = predict(saved[1], [given], track=watched)
    assert answer.intervals[-1].end == 12
    assert seen == [(60, given)] * 60
    assert most <= 2


@torch_only
def test_files_that_cannot_be_read(saved, videos, tmp_path, monkeypatch, capfd):
    with av.open(str(tmp_path / "none.avi"), "w") as file:
        stream = file.add_stream("huffyuv", rate=25)
        stream.height, stream.width, stream.pix_fmt = 24, 32, "rgb24"
        file.start_encoding()
    write_sound(tmp_path / "sound.mp4")
    (tmp_path / "text.mp4").write_text("no video\n" * 99)
    (tmp_path / "half.mp4").write_bytes((videos / "a.mp4").read_bytes()[:300])
    for name, message in (
        ("none.avi", "none.avi: a video without frames"),
        ("sound.mp4", "sound.mp4: no video in it, only audio"),
        ("text.mp4", "text.mp4: not a video"),
        ("half.mp4", "half.mp4: "),  # its header is cut
        ("gone.mp4", "gone.mp4: no such file; give a video"),
    ):
        out, err, code = shown(monkeypatch, capfd, str(saved[1]), str(videos / "a.mp4"), str(tmp_path / name))
        assert (out, code, err.count("\n")) == ("", 2, 1)
        assert err.startswith("error: ")
        assert message in err
    with pytest.raises(InputError, match="videos: none given; give at least one file"):
        predict(saved[1], [])


@tensorflow_only
def test_the_resolution_may_change_within_a_file(saved, tmp_path):
    random = np.random.default_rng(0)
    for name, size in (("one", (24, 32)), ("two", (32, 24))):
        write_h264(tmp_path / f"{name}.h264", random.integers(0, 256, (25, *size, 3)).astype("uint8"))
    path = tmp_path / "both.h264"
    path.write_bytes((tmp_path / "one.h264").read_bytes() + (tmp_path / "two.h264").read_bytes())
    (answer,) = predict(saved[1], [str(path)])
    assert (answer.intervals[-1].end, answer.error) == (2, None)


@tensorflow_only
def test_every_signature_is_verified_at_two_sizes(exported):
    checks = {(check["signature"], *check["shape"]) for check in exported[1]["checks"]}
    shapes = ((1, 3, 4, 5, 3), (5, 11, 10, 10, 3))
    assert checks == {
        ("serve", 1, 3, *SIZE, 3),
        ("serve", 5, 11, *SIZE, 3),
        *((name, *shape) for name in ("clip", "frame") for shape in shapes),
        *(("jpeg", *shape[1:]) for shape in shapes),
    }
    assert exported[1]["largest_difference"] <= 1e-5


@tensorflow_only
def test_a_tagger_in_half_precision_is_verified_step_by_step(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    saving.save(tagger(), tmp_path / "model.keras", CARD)
    checks = {check["signature"]: check["difference"] for check in export(tmp_path / "model.keras")[1]["checks"]}
    assert {"clip", "jpeg", "frame"} <= checks.keys()
    assert max(checks.values()) <= 1e-5


@tensorflow_only
def test_tensorflow_alone_serves_it(saved, exported, tmp_path):
    """In a process that can import neither Keras nor kseq: clips, a camera's frames, and JPEG files of any size."""
    random = np.random.default_rng(1)
    clips = {str(i): random.integers(0, 256, (i, 7, *size, 3)).astype("uint8") for i, size in ((1, SIZE), (3, (9, 5)))}
    np.savez(tmp_path / "clips.npz", **clips)
    pictures = []
    for i, size in enumerate([(6, 8), (30, 41), (5, 5), (64, 48)]):
        image = Image.fromarray(random.integers(0, 256, (3, 4, 3)).astype("uint8")).resize(size[::-1])
        pictures.append(str(tmp_path / f"{i}.{'png' if i == 3 else 'jpg'}"))
        image.save(pictures[-1])
    script = textwrap.dedent(f"""
        import sys, json
        sys.modules["keras"] = sys.modules["kseq"] = sys.modules["PIL"] = None
        import numpy as np
        import tensorflow as tf
        served = tf.saved_model.load({str(exported[0])!r}).signatures
        answers, labels, refused = {{}}, {{}}, []
        for i, clip in np.load("clips.npz").items():
            whole = served["clip"](tf.constant(clip))
            answers["clip " + i], labels[i] = whole["probabilities"], whole["label"].numpy().astype(str).tolist()
            answers["default " + i] = served["serving_default"](tf.constant(clip))["probabilities"]
            states = {{f"state_{{k}}": tf.zeros((len(clip), 4)) for k in range(4)}}  # h and c of two LSTMs
            told = []
            for t in range(clip.shape[1]):
                answer = served["frame"](frame=tf.constant(clip[:, t]), **states)
                states = {{name: answer[name] for name in states}}
                told.append(answer["probabilities"])
            answers["frame " + i] = tf.stack(told, axis=1)
        files = [open(path, "rb").read() for path in {pictures!r}]
        answers["jpeg"] = served["jpeg"](tf.constant(files))["probabilities"]
        for name, raw in (
            ("clip", np.zeros((1, 2, 6, 8, 1), "uint8")),
            ("clip", np.zeros((1, 2, 0, 8, 3), "uint8")),
            ("clip", np.zeros((1, 0, 6, 8, 3), "uint8")),
            ("jpeg", np.zeros(0, str)),
            ("jpeg", [files[0], b"hello"]),
            ("jpeg", [files[0][:200]]),
        ):
            try:
                served[name](tf.constant(raw))
            except tf.errors.InvalidArgumentError as error:
                refused.append(str(error))
        np.savez("answers.npz", **answers)
        print(json.dumps([labels, [name.decode() for name in whole["classes"].numpy()], refused]))
    """)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    labels, names, refused = json.loads(done.stdout)
    answers = np.load(tmp_path / "answers.npz")
    for i, clip in clips.items():
        expected = probabilities(saved[0], clip)
        for name in ("clip", "default", "frame"):
            np.testing.assert_allclose(answers[f"{name} {i}"], expected, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(labels[i], np.array(CLASSES)[expected.argmax(axis=-1)])
    frames = ENCODER([ENCODER.decode(path) for path in pictures])
    expected = keras.ops.softmax(saved[0].predict(frames[None], verbose=0)["logits"][0])
    np.testing.assert_allclose(answers["jpeg"], expected, atol=1e-5)
    assert names == CLASSES
    assert len(refused) == 6
    assert all("images: (batch, height, width, 3) can be read, got" in message for message in refused[:2])
    assert all("frames: none given" in message for message in refused[2:4])
    assert "only PNG and JPEG images can be read" in refused[4]
    assert "Invalid JPEG data" in refused[5]


@tensorflow_only
def test_predictions_from_a_saved_model_need_no_keras(exported, videos):
    code = f"""
import sys
from kseq.export.predict import predict
assert "keras" not in sys.modules
sys.modules["keras"] = None
print(len(predict({str(exported[0])!r}, [{str(videos / "a.mp4")!r}])[0].intervals))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert int(done.stdout or 0) > 2, done.stderr


@tensorflow_only
def test_states_that_are_lost_on_the_way_are_found(tmp_path, monkeypatch):
    from kseq.inference import OnlineVideoTagger

    compute = OnlineVideoTagger.compute
    monkeypatch.setattr(
        OnlineVideoTagger, "compute", lambda self, frames, states: (compute(self, frames, states)[0], states)
    )
    saving.save(tagger(), tmp_path / "model.keras", CARD)
    with pytest.raises(KseqError, match="not written, the export differs from the model by"):
        export(tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


@tensorflow_only
def test_a_tagger_without_states_has_none_in_its_signature(tmp_path):
    saving.save(tagger(cell=None), tmp_path / "model.keras", CARD)
    path, record = export(tmp_path / "model.keras")
    import tensorflow as tf

    assert list(tf.saved_model.load(str(path)).signatures["frame"].structured_input_signature[1]) == ["frame"]
    assert "frame" in {check["signature"] for check in record["checks"]}


@tensorflow_only
def test_a_bidirectional_tagger_reads_clips_and_no_files(videos, tmp_path):
    saving.save(tagger(bidirectional=True), tmp_path / "model.keras", CARD)
    path, record = export(tmp_path / "model.keras")
    assert {check["signature"] for check in record["checks"]} == {"serve", "clip", "jpeg"}
    with pytest.raises(InputError, match="reads a video as a whole, and files are read frame by frame; .* 'clip'"):
        predict(path, [str(videos / "a.mp4")])
    with pytest.raises(InputError, match="recurrent_0 is bidirectional, and reads the video from its end too"):
        predict(tmp_path, [str(videos / "a.mp4")])


@tensorflow_only
@pytest.mark.parametrize(
    ("options", "changed", "names", "message"),
    [
        (
            {},
            {"size": [8, 8]},
            CLASSES,
            r"its card makes clips of shape \(None, None, 8, 8, 3\), the model reads \(None",
        ),
        ({"masked": True}, {}, CLASSES, r"the model reads .*, \(None, None\); save it .* masked=False"),
        ({"stateful": True, "batch_size": 2}, {}, CLASSES, r"the model reads \(2, None, 6, 8, 3\); .* stateful=False"),
        ({}, {}, CLASSES[1:], r"its card names 2 classes at each frame, the model answers \(None, 3\)"),
        ({}, {"fps": 5}, CLASSES, "card: 'video' holds channels, fps, .*; give channels, frame_rate, mean, size, std"),
        ({}, {"frame_rate": 0}, CLASSES, "card: frame_rate 0: give a number above 0 and up to 1,000"),
        ({}, {"std": [0.0, 1.0, 1.0]}, CLASSES, "std .*: values are divided by it"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path, options, changed, names, message):
    saving.save(tagger(**options), tmp_path / "model.keras", {"video": VIDEO | changed, "class_names": names})
    with pytest.raises(InputError, match=message):
        export(tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


@tensorflow_only
@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_shown_on_terminals_alone(terminal, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    assert list(cli.progress_bar(stream)(iter(range(5)), 5, "folder/[a].mp4")) == list(range(5))
    assert ("[a].mp4" in stream.getvalue()) == terminal
    assert bool(stream.getvalue()) == terminal


@tensorflow_only
def test_times_are_hours_minutes_and_seconds():
    assert [cli.clock(seconds, "02.0f") for seconds in (0.0, 59.0, 3600.0, 45_296.0)] == [
        "0:00:00",
        "0:00:59",
        "1:00:00",
        "12:34:56",
    ]
    assert [cli.clock(seconds, "05.2f") for seconds in (9.9, 59.999, 3600.04)] == [
        "0:00:09.90",
        "0:01:00.00",
        "1:00:00.04",
    ]


@tensorflow_only
def test_the_model_in_the_box_knows_the_phases_of_test_videos():
    """In grey, and of a file: what it says of the first of them is what the signature says."""
    import tensorflow as tf

    root = Path(__file__).parents[2]
    videos = kseq.data.workflow_videos((1, 1, 80)).test
    clip = tf.saved_model.load(str(root / "saved_models" / "video_phases")).signatures["clip"]
    told = [clip(tf.constant(frames[None])) for frames, _ in videos[:10]]
    right = [
        answer["probabilities"].numpy()[0].argmax(axis=-1) == phases
        for answer, (_, phases) in zip(told, videos[:10], strict=True)
    ]
    assert np.concatenate(right).mean() == pytest.approx(0.854, abs=0.003)
    (timeline,) = predict(root / "saved_models" / "video_phases", [str(root / "docs" / "pictures" / "procedure.mp4")])
    labels = told[0]["label"].numpy()[0].astype(str).tolist()
    assert [row.phase for row in timeline.intervals for _ in range(round(row.end - row.start))] == labels
