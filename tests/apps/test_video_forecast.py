"""The app at `--quick` size leaves a whole run folder, figures like the paper's, and pictures that show something."""

import importlib.util
import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from kseq.errors import InputError

APP = Path(__file__).parents[2] / "apps" / "video_forecast.py"
PICTURES = ("history.png", "by_frame.png", "frames.png")
ROWS = ["truth itself", "last frame", "mean frame", "FC-LSTM", *(f"ConvLSTM, {n}" for n in ("1 layer", "2 layers"))]


@pytest.fixture(scope="module")
def app():
    specification = importlib.util.spec_from_file_location("video_forecast", APP)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(run_app) -> Path:
    folder, output = run_app("video_forecast")
    assert "ConvLSTM, 3 layers: " in output
    assert "8 test sequences of 10 frames, 64 × 64 pixels" in " ".join(output.split())
    return folder


def test_the_run_folder_is_whole(folder):
    histories = {f"history{name}.csv" for name in ("", "_fc-lstm", "_convlstm_1_layer", "_convlstm_2_layers")}
    others = {"config.json", "metrics.json", "model.keras", "checkpoints", "forecast.gif"}
    assert {path.name for path in folder.iterdir()} == histories | others | set(PICTURES)


def test_the_metrics_are_of_every_model_and_none_beats_the_truth(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics) == [*ROWS, "ConvLSTM, 3 layers"]
    floor = metrics.pop("truth itself")
    assert floor["squared_error"] == 0
    for name, row in metrics.items():
        assert row["cross_entropy"] == pytest.approx(sum(row["by_frame"]))
        assert len(row["by_frame"]) == 10
        assert all(a > b for a, b in zip(row["by_frame"], floor["by_frame"], strict=True))
        assert ("parameters" in row) == ("LSTM" in name)
    last = metrics["last frame"]["by_frame"]
    assert last[0] < last[-1]  # it is right for a moment
    for name in ROWS[3:]:
        # after four steps it still knows no more than how much ink there is: ln 2 a pixel, 28,400, is far away
        assert metrics[name]["cross_entropy"] < 12_000


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_are_not_empty(folder, name):
    pixels = matplotlib.image.imread(folder / name)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.05


def test_the_animation_shows_ten_frames_of_each_and_the_last_frame_stands_still(folder):
    with Image.open(folder / "forecast.gif") as animation:
        assert animation.n_frames == 20
        assert animation.info["loop"] == 0
        frames = []
        for t in (0, 9, 10, 19):
            animation.seek(t)
            frames.append(np.asarray(animation.convert("L"), dtype="float32") / 255)
    height, width = frames[0].shape
    truth, last = (np.s_[height // 4 :, column * width // 7 : (column + 1) * width // 7] for column in (0, 1))
    for column, moves in ((truth, (True, True)), (last, (True, False))):
        for one, other, expected in zip(frames[::2], frames[1::2], moves, strict=True):
            assert (np.abs(one[column] - other[column]).mean() > 0.02) == expected


def test_the_figures_are_those_of_the_paper(app):
    truth = np.zeros((2, 10, 4, 4, 1), "float32")
    truth[1, 3, 0, :2, 0] = 1, 0.5
    forecast = np.full_like(truth, 0.25)
    found = app.figures(truth, forecast)
    black = -np.log(0.75)
    expected = [16 * black] * 10
    expected[3] += 0.5 * (-np.log(0.25) - 0.5 * np.log(0.25 * 0.75) - 2 * black)
    np.testing.assert_allclose(found["by_frame"], expected, rtol=1e-6)
    assert found["cross_entropy"] == pytest.approx(sum(expected))
    assert found["squared_error"] == pytest.approx((319 * 0.0625 + 0.75**2) / 20)
    floor = app.figures(truth, truth)
    assert floor["cross_entropy"] == pytest.approx(0.5 * np.log(2), abs=1e-4)


def test_the_last_frame_is_as_sure_as_validation_says(app):
    known = np.zeros((1, 10, 2, 2, 1))
    known[0, -1, 0, 0] = 1
    still = np.repeat(known[:, -1:], 10, axis=1)
    forecast = app.repeat_last(known, still, known)
    np.testing.assert_allclose(forecast, np.clip(still, app.CLIPS[0], 1 - app.CLIPS[0]))
    half = np.repeat(np.full((1, 1, 2, 2, 1), 0.5), 10, axis=1)
    np.testing.assert_allclose(app.repeat_last(known, half, known), np.clip(still, app.CLIPS[-1], 1 - app.CLIPS[-1]))


def test_logits_far_from_zero_do_not_overflow(app):
    with np.errstate(all="raise"):
        np.testing.assert_allclose(app.sigmoid(np.array([-1e4, -2, 0, 1e4])), [0, 1 / (1 + np.exp(2)), 0.5, 1])


def test_a_width_that_cannot_be_halved_twice_is_refused(app):
    with pytest.raises(InputError, match="--width 6: .* give a multiple of 4"):
        app.main(None, width=6)
