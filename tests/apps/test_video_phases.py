"""The app at `--quick` size leaves a whole run folder, figures between 0 and 1, and pictures that show something."""

import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

import kseq

MODELS = ["framewise ConvNet", "causal TCN", "TCN", "CNN-BiLSTM", "CNN-LSTM"]
PICTURES = {"history.png", "ribbons.png", "confusion.png", "label_shares.png"}


@pytest.fixture(scope="module")
def videos():
    return kseq.data.workflow_videos((6, 4, 3))


@pytest.fixture(scope="module")
def folder(run_app) -> Path:
    pytest.importorskip("av", reason="PyAV is an extra")
    folder, output = run_app("video_phases", "--units", "8")
    assert "cnn_lstm: " in output
    assert "accuracy of the CNN-LSTM, 3 test videos" in output
    return folder


@pytest.fixture(scope="module")
def metrics(folder) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_the_run_folder_is_whole(folder):
    files = {path.name for path in folder.iterdir() if not path.name.startswith("history_")}
    written = {"config.json", "history.csv", "metrics.json", "model.keras", "checkpoints", "example.mp4"}
    assert files == PICTURES | written


def test_the_bounds_are_those_of_the_test_videos(metrics, videos):
    phases = [phases for _, phases in videos.test]
    best = kseq.data.bayes_accuracy(videos.model, videos.views[2], phases)
    assert [row["frame_accuracy"] for row in metrics["bounds"].values()] == pytest.approx(list(best.values()))


def test_the_metrics_are_of_every_model(metrics, videos):
    assert list(metrics["models"]) == MODELS
    for row in metrics["models"].values():
        assert tuple(row["phases"]) == videos.class_names
        assert len(row["videos"]["accuracy"]) == 3
        shares = (row["accuracy"], row["frame_accuracy"], row["edit"], row["f1@50"], *row["mean"].values())
        assert all(0 <= share <= 1 for share in shares if share is not None)


def test_what_does_not_look_ahead_says_the_same_frame_by_frame(metrics):
    differences = {name: row.get("streamed_difference") for name, row in metrics["models"].items()}
    assert [name for name, difference in differences.items() if difference is None] == ["TCN", "CNN-BiLSTM"]
    assert all(difference < 1e-5 for difference in differences.values() if difference is not None)


def test_the_study_of_labels_has_both_arms(metrics):
    (row,) = metrics["label_shares"]
    assert (row["share"], row["videos"]) == (0.5, 3)
    assert all(0 <= row[arm]["accuracy"] <= 1 for arm in ("from random weights", "pre-trained"))


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_the_pictures_are_not_empty(folder, name):
    pixels = matplotlib.image.imread(folder / name)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.05


def test_the_saved_model_reads_the_example_as_its_card_says(folder, videos):
    model, card = (read(folder / "model.keras") for read in (kseq.saving.load, kseq.saving.read_card))
    assert card["task"] == "video phases"
    settings, names = card["video"], tuple(card["class_names"])
    found = kseq.data.read_video(
        folder / "example.mp4",
        size=settings["size"],
        frame_rate=settings["frame_rate"],
        channels=settings["channels"],
    )
    frames = np.stack([frame for frame, _ in found])
    assert (frames == videos.test[0][0]).all()
    encoder = kseq.data.ImageEncoder(*(settings[name] for name in ("size", "channels", "mean", "std")))
    said = np.asarray(model.predict(encoder(frames)[None], verbose=0))[0].argmax(axis=-1)
    metrics = json.loads((folder / "metrics.json").read_text())
    row = metrics["models"]["CNN-LSTM"]
    assert names == videos.class_names
    assert row["videos"]["accuracy"][0] == pytest.approx(np.mean(said == videos.test[0][1]))
