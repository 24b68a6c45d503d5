"""The app at `--quick` size leaves a whole run folder, honest figures, and an export that answers like the run."""

import importlib.util
import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from kseq import saving
from kseq.export import predict

APP = Path(__file__).parents[2] / "apps" / "translation.py"
TRAINED = ["recurrent, one vector", "transformer", "recurrent, attention"]
NAMES = ["the source itself", "most similar verse", *TRAINED]


@pytest.fixture(scope="module")
def folder(run_app) -> Path:
    folder, output = run_app("translation", "--export")
    assert "20 test sentences, trained on 160" in output
    assert "BLEU nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:" in output
    assert "SavedModel in" in output
    return folder


@pytest.fixture(scope="module")
def app():
    specification = importlib.util.spec_from_file_location("translation", APP)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_run_folder_is_whole(folder):
    files = {path.name for path in folder.iterdir()}
    histories = {"history.csv", "history_one_vector.csv", "history_transformer.csv"}
    pictures = {"history.png", "length.png", "alignment.png"}
    others = {"config.json", "metrics.json", "samples.json", "model.keras", "checkpoints", "saved_model"}
    assert files == histories | pictures | others


def test_the_metrics_are_those_of_the_samples(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    samples = json.loads((folder / "samples.json").read_text())  # with --quick all of the test sentences
    assert list(metrics) == NAMES
    assert len(samples) == 20
    references = [[sample["reference"] for sample in samples]]
    for name, row in metrics.items():
        found = [sample[name] for sample in samples]
        assert row["bleu"] == pytest.approx(BLEU().corpus_score(found, references).score)
        assert row["chrf"] == pytest.approx(CHRF().corpus_score(found, references).score)
        words, _ = zip(*row["by_length"], strict=True)
        assert list(words) == sorted(words)
        assert ("validation_bits" in row) == (name in TRAINED)
    assert [sample["the source itself"] for sample in samples] == [sample["source"] for sample in samples]
    for name in TRAINED:
        assert 5 < metrics[name]["validation_bits"] < 9  # two epochs know little more than the size of the vocabulary


def test_the_best_model_is_saved_with_what_translates(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    best = min(TRAINED, key=lambda name: metrics[name]["validation_bits"])
    model = saving.load(folder / "model.keras", compile=False)
    assert model.count_params() == metrics[best]["parameters"]
    settings = saving.read_card(folder / "model.keras")["translation"]
    assert set(settings) == {"source", "target", "max_length", "beam_size", "length_penalty"}


@pytest.mark.parametrize("name", ["history.png", "length.png", "alignment.png"])
def test_the_pictures_are_not_empty(folder, name):
    pixels = matplotlib.image.imread(folder / name)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.05


def test_the_export_translates_like_the_run(folder):
    texts = ["In the beginning, God created the heavens and the earth.", "Abraham went."]
    run, exported = (predict(model, texts) for model in (folder, folder / "saved_model"))
    assert run == exported
    assert [(answer.kind, answer.given) for answer in run] == [("translation", text) for text in texts]


def test_the_most_similar_sentence_shares_words(app):
    train = tuple(np.array(side, dtype=object) for side in (["God is love", "a time to weep"], ["amour", "pleurer"]))
    assert list(app.most_similar(train, np.array(["a time to laugh", "God is light"], dtype=object))) == [
        "pleurer",
        "amour",
    ]


def test_a_perfect_translation_scores_100_at_every_length(app):
    sources = np.array([" ".join(["word"] * count) for count in range(4, 16)], dtype=object)
    references = np.array([" ".join(f"mot{i}" for i in range(count)) for count in range(4, 16)], dtype=object)
    row = app.scores(list(references), (sources, references))
    assert row["bleu"] == pytest.approx(100)
    assert row["chrf"] == pytest.approx(100)
    np.testing.assert_allclose(row["by_length"], [[4.5 + 2 * i, 100] for i in range(6)])
