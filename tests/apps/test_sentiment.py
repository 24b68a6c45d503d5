"""The app at `--quick` size leaves a whole run folder, pictures that show something, and an export of strings."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest

TEXTS = ("A great film, warm and funny.", "dull, dull, dull", "")
MODELS = [
    *("TF-IDF + logistic regression", "the same, from the ratings"),
    *("transformer", "BiLSTM", "average of the networks"),
    "BiLSTM, pre-trained",  # the main one is the last
]


@pytest.fixture(scope="module")
def folder(run_app) -> Path:
    folder, output = run_app("sentiment", "--units", "16", "--embed-dim", "16", "--export")
    assert "46 test sentences, 256 to learn from" in output
    assert "SavedModel in" in output
    assert output.count("% positive") >= 4
    return folder


def test_the_run_folder_is_whole(folder):
    files = {path.name for path in folder.iterdir()}
    names = ("bilstm", "transformer")
    language_models = ("forward_lm_reviews", "backward_lm_reviews")
    histories = {"history.csv", *(f"history_{name}.csv" for name in names + language_models)}
    pictures = {"history.png", "confusion.png", "words.png", "attention.png"}
    assert files == histories | pictures | {"config.json", "metrics.json", "model.keras", "checkpoints", "saved_model"}


def test_the_metrics_are_of_all_models(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics) == MODELS
    assert metrics["TF-IDF + logistic regression"]["accuracy"] > 0.6  # of more sentences than the networks
    for row in metrics.values():
        assert sum(map(sum, row["confusion"])) == 46
        assert row["accuracy"] == pytest.approx(sum(row["confusion"][i][i] for i in range(2)) / 46)
        assert 0 < row["macro_f1"] <= 1
        assert 0 < row["validation_accuracy"] <= 1


@pytest.mark.parametrize("name", ["history.png", "confusion.png", "words.png", "attention.png"])
def test_the_pictures_are_not_empty(folder, name):
    pixels = matplotlib.image.imread(folder / name)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.05


def test_the_export_answers_like_the_run(folder):
    answers = []
    for model in (folder, folder / "saved_model"):
        command = [sys.executable, "-m", "kseq", "predict", str(model), *TEXTS, "--json"]
        answers.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert len(answers[0]) == len(TEXTS)
    for one, other in zip(*answers, strict=True):
        assert one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
