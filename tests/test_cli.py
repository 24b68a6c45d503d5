"""The `kseq` command as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from kseq import cli, saving
from kseq.backend import choose_backend
from kseq.data import CATALOGUE, ImageEncoder
from kseq.errors import InputError
from tests.conftest import tensorflow_only

SHIPPED = Path(__file__).parents[1] / "saved_models" / "char_tagging"
APP = str(Path(__file__).parents[1] / "apps" / "char_tagging.py")


def kseq(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "kseq", *arguments], capture_output=True, text=True, timeout=300, **options
    )


def fails(monkeypatch, capfd, *arguments: str) -> str:
    """Run the command in this process; return its one line of error."""
    monkeypatch.setattr(sys, "argv", ["kseq", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: "), lines
    return lines[0]


@tensorflow_only
def test_help_is_the_map_of_the_product():
    assert "Train an app on a backend" in kseq("run", "--help").stdout
    shown = kseq("--help").stdout
    for command in ("run", "compare", "export", "predict", "models", "data"):
        assert f" {command} " in shown
    assert kseq("--version").stdout.startswith("kseq 0.")


@tensorflow_only
def test_the_shipped_tagger_answers():
    shown = kseq("predict", str(SHIPPED), "deep", "quickly", "--json")
    assert shown.stderr == ""
    answers = json.loads(shown.stdout)
    assert [(answer["word"], answer["label"]) for answer in answers] == [("deep", "adjective"), ("quickly", "adverb")]
    for answer in answers:
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    table = kseq("predict", str(SHIPPED), "deep").stdout
    assert "deep" in table
    assert "adjective" in table


@tensorflow_only
def test_words_from_standard_input():
    answers = json.loads(kseq("predict", str(SHIPPED), "-", "--json", input="quickly\nkindness\n").stdout)
    assert [answer["label"] for answer in answers] == ["adverb", "noun"]
    huge = kseq("predict", str(SHIPPED), "-", input="a" * 10_000_000)
    assert huge.returncode == 2
    assert huge.stderr.count("\n") == 1
    assert "10,000,000 characters; the model reads 1 to 15" in huge.stderr


@pytest.fixture
def image_run(tmp_path):
    """A run folder with an image classifier, and two pictures in it."""
    entry = keras.Input((8, 8, 1))
    model = keras.Model(entry, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(entry)))
    encoder = ImageEncoder((8, 8), 1, (0.5,), (0.5,))
    saving.save(model, tmp_path / "model.keras", {"images": encoder.get_config(), "class_names": list("abcdefghij")})
    for name, size in (("a.png", (9, 12)), ("b.jpg", (8, 8))):
        Image.new("RGB", size, "red").save(tmp_path / name)
    return tmp_path


def test_images_from_a_run_and_from_its_export(image_run):
    files = [str(image_run / name) for name in ("a.png", "b.jpg")]
    assert kseq("export", str(image_run)).returncode == 0
    answers = []
    for source in (image_run, image_run / "saved_model"):
        shown = kseq("predict", str(source), *files, "--json")
        assert shown.stderr == ""
        answers.append(json.loads(shown.stdout))
        assert [answer["image"] for answer in answers[-1]] == files
        assert sorted(answers[-1][0]) == ["image", "label", "probabilities"]
    for ours, served in zip(*answers, strict=True):
        assert served["label"] == ours["label"]
        assert served["probabilities"] == pytest.approx(ours["probabilities"], abs=1e-5)
    table = kseq("predict", str(image_run / "saved_model"), *files, cwd=image_run).stdout
    assert max(map(len, table.splitlines())) <= 80
    best = sorted(answers[0][0]["probabilities"].items(), key=lambda item: -item[1])
    assert f"{best[0][1]:.1%}" in table
    assert f"{best[1][0]} {best[1][1]:.1%}" in table


@pytest.fixture
def segmentation_run(tmp_path):
    """A run folder with a model that finds what is bright, and two pictures: black, and a quarter of it white."""
    entry = keras.Input((4, 4, 1))
    head = keras.layers.Dense(2)
    model = keras.Model(entry, head(entry))
    head.set_weights([np.array([[-1.0, 1.0]]), np.zeros(2)])
    settings = {"channels": 1, "window": [4, 4], "mean": [0.5], "std": [0.5]}
    saving.save(model, tmp_path / "model.keras", {"segmentation": settings, "class_names": ["dark", "bright"]})
    picture = Image.new("L", (10, 6))
    picture.save(tmp_path / "black.png")
    picture.paste(255, (0, 0, 5, 3))
    picture.save(tmp_path / "quarter.png")
    return tmp_path


def test_masks_of_a_run(segmentation_run, monkeypatch, capfd):
    monkeypatch.setenv("KERAS_BACKEND", os.environ["KERAS_BACKEND"])
    monkeypatch.chdir(segmentation_run)

    def shown(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["kseq", "predict", ".", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert not caught.value.code
        return capfd.readouterr().out

    table = shown("black.png", "quarter.png")
    assert "dark 75.0%, bright 25.0%" in table
    assert "dark 100.0%" in table
    assert "mask" not in table
    assert "mask.png" in shown("quarter.png", "-o", "mask.png")
    expected = np.zeros((6, 10))
    expected[:3, :5] = 1
    np.testing.assert_array_equal(np.asarray(Image.open("mask.png")), expected)
    answers = json.loads(shown("black.png", "quarter.png", "--output", "masks", "--json"))
    assert answers == [
        {"image": "black.png", "shares": {"dark": 1.0, "bright": 0.0}, "mask": "masks/black.png"},
        {"image": "quarter.png", "shares": {"dark": 0.75, "bright": 0.25}, "mask": "masks/quarter.png"},
    ]
    np.testing.assert_array_equal(np.asarray(Image.open("masks/quarter.png")), expected)
    assert json.loads(shown("black.png", "--json"))[0]["mask"] is None
    refused = fails(monkeypatch, capfd, "predict", ".", "quarter.png", "-o", "mask.png")
    assert "output mask.png: exists; remove it or give another with --output" in refused


@tensorflow_only
def test_lists():
    shown = kseq("data", env=os.environ | {"COLUMNS": "200"}).stdout
    assert "69,263 words" in shown
    assert "WordNet 3.0" in shown
    assert "5,000 images, 28×28" in shown
    narrow = kseq("data", env=os.environ | {"COLUMNS": "80"}).stdout
    assert all(entry.name in narrow for entry in CATALOGUE)
    shown = kseq("models", env=os.environ | {"COLUMNS": "200"}).stdout
    assert "char_tagger_elman" in shown
    assert "20,356" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", APP, "--backend", "theano"], "backend 'theano': choose one of tensorflow, jax, torch"),
        (["run", "apps/missing.py"], "APP 'apps/missing.py': no such file"),
        (["compare", APP, "--backends", "tensorflow,theano"], "backend 'theano': choose one of"),
        (["compare", "apps/missing.py"], "APP 'apps/missing.py': no such file"),
        (["predict", str(SHIPPED)], "words: none given"),
        (["predict", str(SHIPPED), ""], "word '': empty"),
        (["predict", str(SHIPPED), "deep2"], "has '2'"),
        (["predict", str(SHIPPED), "déjà"], "has 'é'"),
        (["predict", str(SHIPPED), "🙂"], "has '🙂'"),
        (["predict", str(SHIPPED), "a" * 16], "16 characters; the model reads 1 to 15"),
        (["predict", str(SHIPPED), "deep", "-o", "mask.png"], "output mask.png: only a model that segments images"),
        (["predict", "missing", "deep"], "missing: no such file"),
        (["export", "missing"], "missing: no such file"),
        (["export", "missing", "--format", "tflite"], "format 'tflite': choose one of saved_model, onnx"),
    ],
)
def test_bad_input_is_one_line(monkeypatch, capfd, arguments, message):
    monkeypatch.setenv("KERAS_BACKEND", os.environ["KERAS_BACKEND"])
    assert message in fails(monkeypatch, capfd, *arguments)


def test_images_that_cannot_be_read_are_one_line(monkeypatch, capfd, image_run):
    monkeypatch.setenv("KERAS_BACKEND", os.environ["KERAS_BACKEND"])
    (image_run / "half.png").write_bytes((image_run / "a.png").read_bytes()[:60])
    for arguments, message in (
        ([], "images: none given; give at least one PNG or JPEG file"),
        (["missing.png"], "image 'missing.png': cannot be read (No such file or directory); give a PNG or JPEG file"),
        ([str(image_run)], "cannot be read (Is a directory)"),
        ([str(image_run / "model.keras")], "model.keras': not a PNG or JPEG image; convert it"),
        ([str(image_run / "a.png"), str(image_run / "half.png")], "half.png': damaged"),
    ):
        assert message in fails(monkeypatch, capfd, "predict", str(image_run), *arguments)


def test_exports_that_cannot_be_written_are_one_line(monkeypatch, capfd, tmp_path, tagger, card):
    monkeypatch.setenv("KERAS_BACKEND", os.environ["KERAS_BACKEND"])
    saving.save(tagger[0], tmp_path / "model.keras", card)
    (tmp_path / "saved_model").mkdir()
    (tmp_path / "saved_model" / "precious").write_text("")
    assert "exists; remove it or give another" in fails(monkeypatch, capfd, "export", str(tmp_path))
    assert [path.name for path in (tmp_path / "saved_model").iterdir()] == ["precious"]
    (tmp_path / "half.keras").write_bytes((tmp_path / "model.keras").read_bytes()[:9000])
    for command in (["export", "--output", str(tmp_path / "new")], ["predict"]):
        words = ["deep"] if command == ["predict"] else []
        line = fails(monkeypatch, capfd, *command, str(tmp_path / "half.keras"), *words)
        assert "not a complete .keras file" in line
    assert not (tmp_path / "new").exists()


def test_a_missing_backend_says_what_to_install(monkeypatch):
    monkeypatch.setattr("kseq.backend.choice.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"backend jax: not installed; pip install 'kseq\[jax\]'"):
        choose_backend("jax")


def test_the_backend_is_the_flag_or_the_environment_or_tensorflow(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert choose_backend("jax") == os.environ["KERAS_BACKEND"] == "jax"
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert choose_backend() == "torch"
    monkeypatch.delenv("KERAS_BACKEND")
    assert choose_backend() == os.environ["KERAS_BACKEND"] == "tensorflow"
