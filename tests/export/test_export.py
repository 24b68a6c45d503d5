import itertools
import json
import shutil
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from kseq import layers, saving
from kseq.errors import InputError, KseqError
from kseq.export import export, predict
from tests.conftest import tensorflow_only

WORDS = ["deep", "a", "Quickly", "abcdefghijklmno"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A tagger of this backend, exported: the model, its file, the SavedModel, the record."""
    from kseq.models import CharTagger

    keras.utils.set_random_seed(0)
    model = CharTagger(27, 4, units=8, embedding=6)
    folder = tmp_path_factory.mktemp("exported")
    card = {
        "characters": {"characters": "abcdefghijklmnopqrstuvwxyz", "max_length": 15},
        "class_names": ["noun", "verb", "adjective", "adverb"],
    }
    saving.save(model, folder / "model.keras", card)
    path, record = export(folder / "model.keras")
    return model, folder, path, record


def test_the_export_is_verified_and_says_so(exported):
    _, folder, path, record = exported
    assert path == folder / "saved_model"
    assert json.loads((path / "kseq.json").read_text()) == record
    assert record["largest_difference"] <= 1e-5
    shapes = {(check["signature"], *check["shape"]) for check in record["checks"]}
    assert shapes == {("serve", 1, 3), ("serve", 5, 15), ("serving_default", 1, 15), ("serving_default", 5, 7)}
    assert sorted(entry.name for entry in folder.iterdir()) == ["model.keras", "saved_model"]


def test_tensorflow_alone_serves_it(exported, tmp_path):
    """In a process where neither Keras nor kseq can be imported, from raw words, at any batch size and length."""
    model, _, path, _ = exported
    shutil.copytree(path, tmp_path / "served")
    script = textwrap.dedent(f"""
        import sys, json
        sys.modules["keras"] = sys.modules["kseq"] = None
        import tensorflow as tf
        served = tf.saved_model.load("served")
        encoded = served.signatures["serve"](tf.constant([[3, 1, 20], [4, 0, 0]]))["logits"].numpy().tolist()
        answers = []
        for words in ({WORDS!r}, {WORDS[:1]!r}):
            answer = served.signatures["serving_default"](tf.constant(words))
            answers.append([[l.decode() for l in answer["label"].numpy()], answer["probabilities"].numpy().tolist()])
        refused = []
        for word in ("", "a" * 16, "deep2", "déjà", "🙂", "two words", b"\\xff"):
            try:
                served.signatures["serving_default"](tf.constant([word]))
            except tf.errors.InvalidArgumentError as error:
                refused.append(str(error))
        print(json.dumps([encoded, answers, refused]))
    """)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    encoded, answers, refused = json.loads(done.stdout)
    np.testing.assert_allclose(encoded, model.predict(np.array([[3, 1, 20], [4, 0, 0]]), verbose=0), atol=1e-5)
    for (labels, probabilities), words in zip(answers, (WORDS, WORDS[:1]), strict=True):
        expected = _probabilities(model, words)
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
        assert labels == [("noun", "verb", "adjective", "adverb")[i] for i in expected.argmax(axis=1)]
    assert len(refused) == 7
    assert all("can be read" in message for message in refused)


def test_all_ways_to_predict_agree(exported):
    model, folder, path, _ = exported
    expected = _probabilities(model, WORDS)
    for source in (path, folder / "model.keras", folder):
        predictions = predict(source, WORDS)
        assert [(prediction.kind, prediction.given) for prediction in predictions] == [("word", word) for word in WORDS]
        got = [list(prediction.probabilities.values()) for prediction in predictions]
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_onnx(exported, tmp_path):
    import onnxruntime

    model, folder, _, _ = exported
    path, record = export(folder / "model.keras", tmp_path / "tagger.onnx", format="onnx")
    assert json.loads((tmp_path / "tagger.onnx.json").read_text()) == record
    assert {tuple(check["shape"]) for check in record["checks"]} == {(1, 3), (5, 15)}
    session = onnxruntime.InferenceSession(str(path))
    inputs = np.array([[3, 1, 20, 0], [4, 5, 5, 16]], dtype="int32")
    (logits,) = session.run(None, {session.get_inputs()[0].name: inputs})
    np.testing.assert_allclose(logits, model.predict(inputs, verbose=0), atol=1e-5)


@tensorflow_only
@pytest.mark.parametrize("arguments", [{"cell": "rnn", "embedding": "one_hot"}, {"cell": "gru", "depth": 2}])
def test_every_cell_exports(arguments, card, tmp_path):
    from kseq.models import CharTagger

    saving.save(CharTagger(27, 4, units=6, **arguments), tmp_path / "model.keras", card)
    for format in ("saved_model", "onnx"):
        _, record = export(tmp_path / "model.keras", format=format)
        assert record["largest_difference"] <= 1e-5


@tensorflow_only
def test_a_model_without_a_card_serves_its_inputs(tmp_path):
    entry = keras.Input((3,), name="features")
    saving.save(keras.Model(entry, keras.layers.Dense(2)(entry)), tmp_path / "plain.keras")
    path, record = export(tmp_path / "plain.keras")
    assert {check["signature"] for check in record["checks"]} == {"serve"}
    with pytest.raises(InputError, match="does not read .* images or videos, its card has no 'characters' or"):
        predict(path, ["deep"])


@tensorflow_only
@pytest.mark.parametrize(("found", "shown"), [([1e-3], "1.0e-03"), ([1e-9, float("nan")], "nan")])
def test_an_export_that_differs_is_not_written(exported, tmp_path, monkeypatch, found, shown):
    from kseq.export import saved_model

    differences = itertools.cycle(found)
    monkeypatch.setattr(saved_model, "difference", lambda got, expected: next(differences))
    with pytest.raises(KseqError, match=f"not written, the export differs from the model by {shown}"):
        export(exported[1] / "model.keras", tmp_path / "wrong")
    assert not list(tmp_path.iterdir())


@tensorflow_only
def test_mixed_precision_is_told_which_format_works(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    entry = keras.Input((3,), name="features")
    saving.save(keras.Model(entry, keras.layers.Dense(2)(entry)), tmp_path / "mixed.keras")
    with pytest.raises(InputError, match="needs float32; use --format saved_model"):
        export(tmp_path / "mixed.keras", format="onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["mixed.keras"]


def test_bad_inputs(exported, tmp_path):
    _, folder, path, _ = exported
    before = sorted(entry.name for entry in path.iterdir())
    with pytest.raises(InputError, match="exists; remove it or give another"):
        export(folder)
    assert sorted(entry.name for entry in path.iterdir()) == before
    with pytest.raises(InputError, match="format 'tflite': choose one of saved_model, onnx"):
        export(folder, format="tflite")
    with pytest.raises(InputError, match="holds no model.keras"):
        export(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        export(tmp_path / "missing.keras")
    with pytest.raises(InputError, match="there is no folder"):
        export(folder / "model.keras", tmp_path / "missing" / "saved_model")
    (tmp_path / "model.h5").write_bytes(b"")
    with pytest.raises(InputError, match=r"not a \.keras file"):
        export(tmp_path / "model.h5")
    (tmp_path / "half.keras").write_bytes((folder / "model.keras").read_bytes()[:5000])
    with pytest.raises(InputError, match="not a complete .keras file"):
        export(tmp_path / "half.keras")
    assert not (tmp_path / "saved_model").exists()


def test_missing_packages_are_named(exported, tmp_path, monkeypatch):
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else find_spec(name))
    with pytest.raises(InputError, match=r"needs tf2onnx; pip install 'kseq\[onnx\]'"):
        export(exported[1], tmp_path / "model.onnx", format="onnx")


def test_predict_bad_inputs(exported, tmp_path):
    path = exported[2]
    with pytest.raises(InputError, match="none given"):
        predict(path, [])
    with pytest.raises(InputError, match="word 'deep2': has '2'"):
        predict(path, ["deep", "deep2"])
    with pytest.raises(InputError, match="holds neither"):
        predict(tmp_path, ["deep"])
    with pytest.raises(InputError, match="no such file"):
        predict(tmp_path / "missing", ["deep"])
    shutil.copytree(path, tmp_path / "damaged")
    (tmp_path / "damaged" / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(InputError, match="a damaged SavedModel"):
        predict(tmp_path / "damaged", ["deep"])
    (tmp_path / "damaged" / "kseq.json").unlink()
    with pytest.raises(InputError, match="not one of kseq"):
        predict(tmp_path / "damaged", ["deep"])


def _probabilities(model: keras.Model, words: list[str]) -> np.ndarray:
    from kseq.data import CharacterEncoder

    logits = model.predict(CharacterEncoder("abcdefghijklmnopqrstuvwxyz", 15)(words), verbose=0)
    return keras.ops.convert_to_numpy(keras.ops.softmax(logits))


@tensorflow_only
def test_a_transformer_of_any_length_as_onnx(tmp_path):
    """Its reshapes have two unknown sizes, batch and time, which tf2onnx may get wrong."""
    pytest.importorskip("tf2onnx")
    tokens = keras.Input((None, 8))
    x = layers.SinusoidalPositionEncoding()(tokens)
    x = layers.TransformerEncoderBlock(2, 12)(x)
    x = layers.TransformerDecoderBlock(2, 12)(x)
    saving.save(keras.Model(tokens, x), tmp_path / "model.keras", {})
    _, record = export(tmp_path / "model.keras", tmp_path / "model.onnx", format="onnx")
    assert record["largest_difference"] < 1e-5
    shapes = [check["shape"] for check in record["checks"]]
    assert len({shape[1] for shape in shapes}) == len({shape[0] for shape in shapes}) == 2
