"""The app at `--quick` size leaves a whole run folder, with pictures that show something."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest


@pytest.fixture(scope="module")
def folder(run_app) -> Path:
    folder, output = run_app("char_tagging", "--units", "16", "--export")
    assert "347 test words" in output
    assert "SavedModel in" in output
    return folder


def test_the_run_folder_is_whole(folder):
    files = {path.name for path in folder.iterdir()}
    assert files == {
        *("config.json", "history.csv", "history_elman.csv", "metrics.json", "model.keras", "checkpoints"),
        *("history.png", "confusion.png", "characters.png", "saved_model"),
    }


def test_the_metrics_are_of_three_models_and_more_than_chance(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics) == ["n-grams + logistic regression", "vanilla RNN, one-hot", "bidirectional LSTM"]
    assert metrics["n-grams + logistic regression"]["accuracy"] > 0.8
    for row in metrics.values():
        assert row["accuracy"] > 0.6
        assert 0 < row["macro_f1"] <= 1
        assert sum(map(sum, row["confusion"])) == 347
        correct = sum(row["confusion"][i][i] for i in range(4))
        assert row["accuracy"] == pytest.approx(correct / 347)


@pytest.mark.parametrize("name", ["history.png", "confusion.png", "characters.png"])
def test_the_pictures_are_not_empty(folder, name):
    pixels = matplotlib.image.imread(folder / name)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.05


def test_the_export_predicts_like_the_run(folder):
    answers = []
    for model in (folder, folder / "saved_model"):
        command = [sys.executable, "-m", "kseq", "predict", str(model), "deep", "quickly", "--json"]
        answers.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    for one, other in zip(*answers, strict=True):
        assert one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
