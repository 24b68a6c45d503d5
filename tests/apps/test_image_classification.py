"""The app at `--quick` size leaves a whole run folder, pictures that show something, and an export that reads PNG."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

import kseq


@pytest.fixture(scope="module")
def folder(run_app) -> Path:
    folder, output = run_app("image_classification", "--embed-dim", "16", "--depth", "2", "--export")
    assert "50 test images, trained on 175" in output
    assert "test accuracy by number of training images" in output
    assert "SavedModel in" in output
    return folder


def test_the_run_folder_is_whole(folder):
    files = {path.name for path in folder.iterdir()}
    histories = {f"history{name}.csv" for name in ("", "_conv_net", "_conv_net_100", "_model_100")}
    pictures = {"history.png", "confusion.png", "attention.png", "curve.png"}
    assert files == histories | pictures | {"config.json", "metrics.json", "model.keras", "checkpoints", "saved_model"}


def test_the_metrics_are_of_three_models(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    accuracies = metrics.pop("accuracy by training images")
    assert list(metrics) == list(accuracies) == ["support-vector machine", "ConvNet", "ViT"]
    assert metrics["support-vector machine"]["accuracy"] > 0.5
    for name, row in metrics.items():
        assert sum(map(sum, row["confusion"])) == 50
        assert sorted(map(int, accuracies[name])) == [100, 175]
        assert accuracies[name]["175"] == row["accuracy"] == sum(row["confusion"][i][i] for i in range(10)) / 50


@pytest.mark.parametrize("name", ["history.png", "confusion.png", "attention.png", "curve.png"])
def test_the_pictures_are_not_empty(folder, name):
    pixels = matplotlib.image.imread(folder / name)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.05


def test_the_export_answers_like_the_run_for_png_files_of_another_size(folder, tmp_path):
    digits = kseq.data.handwritten_digits().test[0][:2, ..., 0]
    paths = [str(tmp_path / f"{i}.png") for i in range(2)]
    for path, digit, size in zip(paths, digits, (28, 45), strict=True):
        Image.fromarray(digit).resize((size, size)).save(path)
    answers = []
    for model in (folder, folder / "saved_model"):
        command = [sys.executable, "-m", "kseq", "predict", str(model), *paths, "--json"]
        answers.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    for one, other in zip(*answers, strict=True):
        assert one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)


def test_the_saved_model_reads_raw_pixels_and_bytes_by_tensorflow_alone(folder, tmp_path):
    digit = kseq.data.handwritten_digits().test[0][0]
    Image.fromarray(digit[..., 0]).save(tmp_path / "digit.png")
    np.save(tmp_path / "digit.npy", digit)
    program = f"""
import numpy as np, sys
import tensorflow as tf
model = tf.saved_model.load({str(folder / "saved_model")!r})
raw = model.signatures["serving_default"](tf.constant(np.load("digit.npy")[None]))
read = model.signatures["encoded"](tf.constant([open("digit.png", "rb").read()]))
assert "kseq" not in sys.modules
assert np.abs(raw["probabilities"] - read["probabilities"]).max() < 1e-6
assert raw["label"] == read["label"]
print(raw["label"].numpy()[0].decode())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in set("0123456789")
