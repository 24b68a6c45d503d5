"""The app at `--quick` size leaves a whole run folder; its figures mean what its page says they do."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

import kseq
from kseq.errors import InputError
from tests.conftest import torch_only

APP = Path(__file__).parents[2] / "apps" / "long_range_context.py"
PICTURES = ("dice_by_distance.png", "phantoms.png")


@pytest.fixture(scope="module")
def app():
    specification = importlib.util.spec_from_file_location("long_range_context", APP)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(run_app) -> Path:
    folder, output = run_app("long_range_context", "--models", "unet")
    assert "8 images each, 1 seeds" in " ".join(output.split())  # a narrow table breaks its title
    assert "The U-Net sees 23 pixels far." in output
    return folder


@pytest.fixture(scope="module")
def phantoms():
    return kseq.data.context_phantoms((1, 1, 24), (64, 32), (4, 30))


def test_the_run_folder_is_whole(folder):
    others = {"config.json", "metrics.json", "history_unet_0.csv", "model.keras", "checkpoints"}
    assert {path.name for path in folder.iterdir()} == others | set(PICTURES)


def test_the_metrics_have_every_distance_and_the_unet_cannot_see_the_far_bubble(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    row = metrics["models"]["unet"]
    for figure in ("dice", "right_side", "cue_seen"):
        assert list(row[figure]) == ["4", "30"]
        assert all(0 <= value["mean"] <= 1 and value["std"] == 0 for value in row[figure].values())
    assert row["reach"] == 23  # three levels of two 3 × 3 convolutions: 20, and up to 3 by the places of the poolings
    assert row["cue_seen"]["4"]["mean"] > 0.9
    assert row["cue_seen"]["30"]["mean"] == 0
    assert row["seeds"][0]["training_seconds"] > 0


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_are_not_empty(folder, name):
    pixels = matplotlib.image.imread(folder / name)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.05


def test_the_bubble_and_nothing_else_is_painted_over(app, phantoms):
    images, labels = phantoms.test
    painted = app.without_bubble(images, phantoms.cues[2])
    changed = (painted != images)[..., 0]
    assert changed.any(axis=(1, 2)).all()
    assert not changed[labels > 0].any()
    rows, columns = np.indices(labels.shape[1:])
    for found, (y, x) in zip(changed, phantoms.cues[2], strict=True):
        assert found[y, x]
        assert np.maximum(abs(rows - y), abs(columns - x))[found].max() <= 4


@pytest.mark.parametrize(
    ("answer", "dice", "right_side"),
    [("truth", 1, 1), ("exchanged", 0, 0), ("all organ", 1 / 3, None)],
)
def test_answers_known_beforehand_score_what_the_page_says(app, phantoms, answer, dice, right_side):
    labels = phantoms.test[1]
    told = {"truth": labels, "exchanged": np.array([0, 2, 1])[labels], "all organ": labels > 0}[answer].astype(int)
    model = SimpleNamespace(predict=lambda images, **_: 5 * np.eye(3, dtype="float32")[told])
    figures, predictions = app.evaluate(model, phantoms, lambda images: images)
    np.testing.assert_array_equal(predictions, told)
    for d in (4, 30):
        assert figures["dice"][d] == pytest.approx(dice, abs=1e-6)
        assert right_side is None or figures["right_side"][d] == right_side
        assert figures["cue_seen"][d] == 0  # the answer does not depend on the image


@torch_only
def test_all_models_can_be_built_at_the_size_of_the_page_and_are_of_like_size(app):
    counts = {name: build((64, 32, 1), 3, name).count_params() for name, (_, build) in app.MODELS.items()}
    assert len(counts) == 7
    assert min(counts.values()) > 50_000
    assert max(counts.values()) < 1_000_000


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda app: app.parse_models("unet,vgg"), r"--models unet,vgg: no vgg; give all, or some of unet,"),
        (lambda app: app.numbers("size", "64x", "x"), r"--size 64x: give whole numbers of 1 or more, such as 32x64"),
        (lambda app: app.numbers("distances", "4,-1", ","), r"--distances 4,-1: give whole numbers"),
        (lambda app: app.main(None, seeds=0), r"--seeds 0: give 1 or more"),
    ],
)
def test_flags_that_cannot_be_are_refused(app, call, words):
    with pytest.raises(InputError, match=words):
        call(app)


def test_distances_are_sorted_and_sizes_keep_their_order(app):
    assert app.numbers("distances", "8,4,8", ",") == (4, 8)
    assert app.numbers("size", "64x32", "x") == (64, 32)
