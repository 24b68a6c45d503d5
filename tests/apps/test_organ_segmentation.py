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

CLASSES = kseq.data.brain_slices().class_names


@pytest.fixture(scope="module")
def folder(run_app) -> Path:
    folder, output = run_app("organ_segmentation", "--export")
    assert "u_transformer: " in output
    assert "8 slices of 64 × 48" in output
    assert "means over classes, 4 test slices" in output
    assert "SavedModel in" in output
    return folder


def test_the_run_folder_is_whole(folder):
    files = {path.name for path in folder.iterdir()}
    pictures = {"history.png", "overlays.png", "attention.png"}
    written = {"config.json", "history.csv", "metrics.json", "model.keras", "checkpoints", "saved_model"}
    assert files == pictures | written


def test_the_metrics_are_of_the_baselines_and_the_network(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics) == ["random forest of pixels", "most similar slice", "u_transformer"]
    assert metrics["random forest of pixels"]["dice"] > 0.2
    assert metrics["most similar slice"]["dice"] > 0.3
    for row in metrics.values():
        assert tuple(row["classes"]) == CLASSES[1:]
        assert row["dice"] == pytest.approx(np.mean([one["dice"] for one in row["classes"].values()]))
        assert 0 <= row["iou"] <= row["dice"] <= 1


def test_the_best_epoch_is_that_of_the_validation_dice(folder):
    header = (folder / "history.csv").read_text().split("\n")[0].split(",")
    assert {"loss", "dice", "val_loss", "val_dice"} < set(header)


@pytest.mark.parametrize("name", ["history.png", "overlays.png", "attention.png"])
def test_the_pictures_are_not_empty(folder, name):
    pixels = matplotlib.image.imread(folder / name)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.05


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    """A slice in a size that is odd, wider than the window and lower than it."""
    path = tmp_path_factory.mktemp("scan") / "scan.png"
    Image.fromarray(kseq.data.brain_slices().test[0][5, 20:81, :, 0]).save(path)
    return path


def test_the_export_answers_like_the_run(folder, scan, tmp_path):
    masks = []
    for model, name in ((folder, "one.png"), (folder / "saved_model", "other.png")):
        command = [sys.executable, "-m", "kseq", "predict", str(model), str(scan), "-o", str(tmp_path / name), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        (answer,) = json.loads(done.stdout)
        assert tuple(answer["shares"]) == CLASSES
        masks.append(np.asarray(Image.open(tmp_path / name)))
        assert masks[-1].shape == (61, 96)
        assert np.bincount(masks[-1].ravel(), minlength=11) / masks[-1].size == pytest.approx(
            [*answer["shares"].values()]
        )
    assert (masks[0] != masks[1]).mean() < 0.001  # where two classes are as good as equally probable


def test_the_saved_model_needs_tensorflow_alone(folder, scan):
    program = f"""
import numpy as np, sys
import tensorflow as tf
model = tf.saved_model.load({str(folder / "saved_model")!r})
content = open({str(scan)!r}, "rb").read()
read = model.signatures["encoded"](tf.constant(content))
raw = model.signatures["serving_default"](tf.io.decode_png(content, channels=1)[None])
assert "kseq" not in sys.modules
assert (raw["labels"][0] == read["labels"]).numpy().all()
print(*read["labels"].shape, read["classes"].numpy()[1].decode())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "61 96 frontal lobe"


def test_a_folder_of_ones_own(run_app, tmp_path):
    x, y = kseq.data.brain_slices("tissue").train
    for kind, arrays in (("images", x[..., 0]), ("masks", y)):
        (tmp_path / kind).mkdir()
        for i in range(10):
            Image.fromarray(arrays[5 * i][:, i:]).save(tmp_path / kind / f"{i}.png")  # of different sizes
    (tmp_path / "classes.txt").write_text("nothing\ngrey\nwhite\nrest\n")
    flags = ("--model", "unet", "--data", "pairs", "--folder", str(tmp_path), "--no-baselines", "--epochs", "1")
    folder, _ = run_app("organ_segmentation", *flags)
    assert not (folder / "attention.png").exists()  # a U-Net has none
    assert list(json.loads((folder / "metrics.json").read_text())["unet"]["classes"]) == ["grey", "white", "rest"]
