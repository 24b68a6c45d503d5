"""The app at `--quick` size on films that are made here: a whole run folder, and figures whose error is told."""

import importlib.util
import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from kseq.errors import InputError
from tests.apps.films import write_films

pytest.importorskip("av", reason="PyAV is an extra")
APP = Path(__file__).parents[2] / "apps" / "arrow_of_time.py"
MODELS = ["statistics of frames", "8 × 8 pixels", "ConvLSTM"]


@pytest.fixture(scope="module")
def app():
    specification = importlib.util.spec_from_file_location("arrow_of_time", APP)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(run_app, tmp_path_factory) -> Path:
    films = write_films(tmp_path_factory.mktemp("films"))
    folder, output = run_app("arrow_of_time", "--clips", str(films))
    assert "training windows of 8 frames, 3 films" in output
    assert "test windows of 8 frames, half of them reversed" in output
    assert "a coin, ± standard error" in output
    return folder


def test_the_run_folder_is_whole(folder):
    others = {"config.json", "history.csv", "metrics.json", "model.keras", "checkpoints"}
    assert {path.name for path in folder.iterdir()} == others | {"history.png", "windows.png"}


def test_the_metrics_are_of_every_film_and_add_up(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics) == MODELS
    for row in metrics.values():
        films = row["films"]
        assert list(films) == ["brighter.mkv", "moving.mkv", "still.mkv"]
        assert row["windows"] == sum(film["windows"] for film in films.values())
        right = sum(film["accuracy"] * film["windows"] for film in films.values())
        assert row["accuracy"] == pytest.approx(right / row["windows"])
        for film in films.values():
            assert film["standard_error"] == pytest.approx(0.5 / film["windows_apart"] ** 0.5)
            assert film["windows_apart"] <= film["windows"] / 2


def test_a_film_that_only_gets_brighter_is_read_by_statistics_of_its_frames(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    brighter, _, still = metrics["statistics of frames"]["films"].values()
    assert brighter["accuracy"] == brighter["pairs"] == 1
    assert still["accuracy"] == 0.5  # it is the same in both directions: exactly one of two is right


@pytest.mark.parametrize("name", ["history.png", "windows.png"])
def test_the_pictures_are_not_empty(folder, name):
    pixels = matplotlib.image.imread(folder / name)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.05


def test_overlapping_windows_do_not_count_for_the_error(app):
    labels = np.tile([0, 1], 10)
    scores = np.tile([-1.0, 1.0], 10)
    for length, stride, apart in ((8, 1, 2), (8, 4, 5), (8, 3, 4), (8, 8, 10), (8, 20, 10)):
        found = app.figures(scores, labels, length, stride)
        assert found["windows_apart"] == apart
        assert found["accuracy"] == found["pairs"] == 1
    biased = app.figures(scores + 5, labels, 8, 1)
    assert (biased["accuracy"], biased["pairs"]) == (0.5, 1)


def test_clips_are_changed_as_a_whole(app):
    random = np.random.default_rng(0)
    clips = np.repeat(random.uniform(-1, 1, (6, 1, 16, 16, 1)), 5, axis=1).astype("float32")
    changed = app.changed_clips(clips, random)
    assert changed.shape == clips.shape
    assert changed.dtype == np.float32
    np.testing.assert_array_equal(changed, changed[:, :1].repeat(5, axis=1))  # a still stays still
    assert (np.abs(changed - clips).max(axis=(1, 2, 3, 4)) > 0.01).all()


def test_what_stands_still_is_taken_away_in_both_directions_alike(app):
    windows = np.random.default_rng(0).uniform(size=(2, 8, 4, 4, 1))
    moved = app.motion(windows + np.linspace(0, 5, 16).reshape(4, 4, 1))
    np.testing.assert_allclose(moved, app.motion(windows), atol=1e-12)
    np.testing.assert_allclose(app.motion(windows[:, ::-1]), moved[:, ::-1], atol=1e-12)


def test_features_know_the_order_of_frames(app):
    windows = np.random.default_rng(0).uniform(size=(3, 8, 16, 16, 1))
    for features in (app.statistics, app.pooled):
        there, back = features(windows), features(windows[:, ::-1])
        assert there.shape == back.shape
        assert (np.abs(there - back).max(axis=1) > 1e-3).all()
    np.testing.assert_allclose(app.pooled(windows)[0, 1], windows[0, 0, :2, 2:4].mean())


def test_a_folder_without_films_is_refused(app, tmp_path):
    with pytest.raises(InputError, match="no bikes.mp4"):
        app.films(str(tmp_path))


def test_frames_that_patches_do_not_fill_are_refused(app):
    with pytest.raises(InputError, match="--size 60: .* give a multiple of 8"):
        app.main(None, size=60)
