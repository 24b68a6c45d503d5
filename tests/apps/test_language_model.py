"""Every character is scored once; the app at `--quick` size leaves its run folder, and an export that writes on."""

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from scipy.special import log_softmax

import kseq
from kseq.data.tokenizer import END, START, UNKNOWN
from kseq.errors import InputError
from kseq.inference import continue_text
from kseq.models import LanguageModel

APP = Path(__file__).parents[2] / "apps" / "language_model.py"
PICTURES = ("curve.png", "memory.png")
random = np.random.default_rng(3)
PASSAGES = [np.concatenate([[START], random.integers(4, 9, length)]) for length in (23, 16)]


@pytest.fixture(scope="module")
def app():
    spec = importlib.util.spec_from_file_location("language_model", APP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(run_app) -> Path:
    folder, output = run_app("language_model", "--export")
    assert "16,000 characters of 8 held-out passages" in output
    assert "[temperature 0.7]\nShe was " in output
    assert "SavedModel in" in output
    return folder


# The baseline


def kneser_ney(passages: list, vocabulary_size: int, largest_order: int, order: int, text: tuple) -> float:
    """P of the last token of `text`, from its definition, with dictionaries and recursion."""
    rows = [(START,) * (largest_order - 1) + tuple(map(int, passage[1:])) for passage in passages]
    places = [(row, end) for row in rows for end in range(largest_order, len(row) + 1)]

    def counts(n):
        grams = [row[end - n : end] for row, end in places]
        if n == order:
            return Counter(grams)
        return Counter(gram[1:] for gram in {row[end - n - 1 : end] for row, end in places})

    def probability(n, text):
        if n == 0:
            return 1 / (vocabulary_size - 2)
        table = counts(n)
        head, lower = text[-n:][:-1], probability(n - 1, text)
        behind = [count for gram, count in table.items() if gram[:-1] == head]
        if not behind:
            return lower
        once, twice = (sum(count == times for count in table.values()) for times in (1, 2))
        once = max(once, 1)
        discount = once / (once + 2 * twice)
        return (max(table[text[-n:]] - discount, 0) + discount * len(behind) * lower) / sum(behind)

    return probability(order, (START,) * (largest_order - 1) + text)


@pytest.fixture(scope="module")
def n_grams(app):
    ended = [np.append(passage, END) for passage in PASSAGES]
    return app.KneserNey(ended, 10, 4), ended


def test_the_n_grams_are_their_definition(n_grams):
    model, passages = n_grams
    text = np.array([START, 4, 5, 9, 4, 4, UNKNOWN, 7, 8, END])
    text = np.concatenate([text, passages[0][1:7]])
    for order in model.orders:
        slow = [kneser_ney(passages, 10, 4, order, tuple(text[1 : end + 1])) for end in range(1, len(text))]
        np.testing.assert_allclose(model.probabilities(text, order), slow, rtol=1e-12)


def test_the_n_grams_are_distributions(n_grams):
    model, passages = n_grams
    histories = [passages[0][:8], np.array([START]), np.array([START, UNKNOWN, 9]), passages[1]]
    for order in model.orders:
        for history in histories:
            tokens = (token for token in range(10) if token not in (0, START))
            total = sum(model.probabilities(np.append(history, token), order)[-1] for token in tokens)
            assert total == pytest.approx(1, abs=1e-12)


def test_counting_helps_and_more_than_chance(n_grams, app):
    model, passages = n_grams
    bits = [app.mean(model.bits(passages, order)) for order in model.orders]
    assert bits == sorted(bits, reverse=True)  # on its own text, more context is better
    assert bits[0] < np.log2(8)


# Evaluation


def bits_of_whole(model, passage):
    log_p = log_softmax(np.float64(model.predict(passage[None, :-1], verbose=0)[0]), axis=-1)
    return -log_p[np.arange(len(passage) - 1), passage[1:]] / np.log(2)


def test_bits_do_not_depend_on_how_the_text_is_cut(app):
    sizes = {"cell": "lstm", "units": 6, "embed_dim": 5, "depth": 1, "dropout": 0.5, "mask_zero": False}
    whole = LanguageModel(10, **sizes)
    whole.set_weights([random.normal(size=w.shape) for w in whole.get_weights()])
    expected = [bits_of_whole(whole, passage) for passage in PASSAGES]
    for parts, window in (([PASSAGES], 7), ([PASSAGES], 22), ([[passage] for passage in PASSAGES], 7)):
        found = []
        for passages in parts:
            reader = LanguageModel(10, **sizes, stateful=True, batch_size=len(passages))
            reader.set_weights(whole.get_weights())
            found += app.bits_by_carrying(reader, passages, window)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
        assert app.mean(found) == pytest.approx(np.concatenate(expected).mean(), abs=1e-6)


def test_sliding_windows_predict_each_token_once_from_half_a_window(app):
    sizes = {"cell": "transformer", "embed_dim": 8, "num_heads": 2, "depth": 1, "mask_zero": False}
    model = LanguageModel(10, **sizes)
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
    inputs, targets = app.sliding_windows(PASSAGES, 8)
    assert inputs.shape == targets.shape == (5 + 3, 8)
    np.testing.assert_array_equal(targets[targets > 0], np.concatenate([passage[1:] for passage in PASSAGES]))
    found = app.bits_by_sliding(model, PASSAGES, 8)
    for passage, bits in zip(PASSAGES, found, strict=True):
        assert len(bits) == len(passage) - 1
        for place in (0, 7, 8, len(bits) - 1):
            start = max(0, (place - 4) // 4 * 4)
            window = np.zeros(9, "int64")
            window[: len(passage[start : start + 9])] = passage[start : start + 9]
            assert bits[place] == pytest.approx(bits_of_whole(model, window)[place - start], abs=1e-5)


def test_an_unknown_character_costs_its_name(app):
    logits = np.zeros((1, 2, 8))
    np.testing.assert_allclose(app.bits_of_tokens(logits, np.array([[5, UNKNOWN]])), [[3, 3 + np.log2(0x110000)]])


def test_context_begins_with_the_window(app):
    windows = app.random_windows(PASSAGES, 6, 50, seed=0)
    assert windows.shape == (50, 7)
    assert START not in windows
    texts = ["".join(map(str, passage)) for passage in PASSAGES]
    assert all(any("".join(map(str, window)) in text for text in texts) for window in windows)


def test_shifted_windows_are_pieces_of_the_stream(app):
    stream = np.arange(100)
    windows = app.ShiftedWindows(stream, stream + 1, batch_size=3, length=8, seed=0)
    assert len(windows) == 3
    seen = []
    for epoch in (0, 1):
        windows.set_epoch(epoch)
        inputs, targets = (np.concatenate(parts) for parts in zip(*(windows[i] for i in range(3)), strict=True))
        np.testing.assert_array_equal(targets, inputs + 1)
        np.testing.assert_array_equal(np.diff(inputs, axis=1), 1)
        assert len(np.unique(inputs)) == inputs.size == 72
        seen.append(inputs)
    assert (seen[0] != seen[1]).any()


def test_a_text_too_short_to_split(app, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("It is a truth.")
    run = kseq.training.Run(app="language_model", folder=tmp_path, epochs=1, batch_size=2)
    with pytest.raises(InputError, match="short.txt: 1 characters in a split; give a text with 128 or more"):
        app.main(run, data=str(path))


# The whole


def test_the_run_folder_is_whole(folder):
    files = {path.name for path in folder.iterdir()}
    histories = {f"history{name}.csv" for name in ("", "_rnn", "_gru", "_transformer")}
    files_of_all = {"config.json", "metrics.json", "model.keras", "checkpoints", "saved_model", "samples.txt"}
    assert files == histories | set(PICTURES) | files_of_all


def test_the_metrics_are_of_five_models(folder, app):
    metrics = json.loads((folder / "metrics.json").read_text())
    by_context = metrics.pop("bits by characters of context")
    assert list(metrics) == list(by_context) == ["n-grams, Kneser-Ney", "vanilla RNN", "GRU", "transformer", "LSTM"]
    for row in metrics.values():
        assert 1 < row["bits per character"] < 7
        assert np.mean(row["passages"]) == pytest.approx(row["bits per character"], abs=1e-6)  # all have 2,000
    size = kseq.saving.load(folder / "model.keras", compile=False).output_shape[-1]
    for cell, name in app.TITLES.items():
        sizes = app.sizes_for(cell, 10_000, size, 1)
        count = app.parameter_count(cell, sizes["embed_dim" if cell == "transformer" else "units"], size, 1)
        assert metrics[name]["parameters"] == count == pytest.approx(10_000, rel=0.2)
    assert metrics["LSTM"]["validation"][-1] == pytest.approx(metrics["LSTM"]["bits per character"], abs=0.3)
    assert by_context["n-grams, Kneser-Ney"]["1"] > by_context["n-grams, Kneser-Ney"]["3"]


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_are_not_empty(folder, name):
    pixels = matplotlib.image.imread(folder / name)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.05


def test_samples_are_of_each_temperature(folder):
    samples = (folder / "samples.txt").read_text()
    assert samples.count("[temperature") == samples.count("She was ") == 3


def test_the_saved_model_writes_on_by_tensorflow_alone(folder, tmp_path):
    program = f"""
import sys
import tensorflow as tf
model = tf.saved_model.load({str(folder / "saved_model")!r})
write = lambda texts: model.signatures["serving_default"](
    texts=tf.constant(texts), temperature=tf.constant(0.001), seed=tf.constant(1)
)["text"].numpy()
one = write(["It was "])
both = write(["She said that ", "It was "])
assert "kseq" not in sys.modules
assert one[0] == both[1]
print(one[0].decode())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = folder / "model.keras"
    tokenizer = kseq.data.Tokenizer(**kseq.saving.read_card(path)["continuation"]["tokenizer"])
    text = continue_text(kseq.saving.load(path, compile=False), "It was ", tokenizer, max_length=10, temperature=0)
    assert done.stdout.startswith(f"It was {text}")
