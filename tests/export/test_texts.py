"""SavedModels from strings to classes or strings: by TensorFlow alone, and equal to the Keras model."""

import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from kseq import cli, models, saving
from kseq.data import Tokenizer
from kseq.errors import InputError
from kseq.export import Answer, export, predict, stream
from tests.conftest import tensorflow_only

pytestmark = tensorflow_only  # who else exports starts this process: tests of the apps do

TEXTS = [
    "In the beginning, God created the heavens and the earth.",
    "l'homme",
    "an apple a day keeps the doctor away!",
    "Dieu vit que cela était bon.",
]
HOSTILE = [
    "",
    "   \t\n ",
    "☃☃☃",
    "in the שלום beginning مرحبا",
    "the\x00\x07\u200fearth",
    "👩‍🔬 the apple",
    "▁##the",
    "the " * 25_000,
]


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {
        "subword": Tokenizer.train(TEXTS, "subword", 90),
        "word": Tokenizer.train(TEXTS, "word", 30, lowercase=True),
        "character": Tokenizer.train(TEXTS, "character", 60),
    }


@pytest.fixture(scope="module")
def build(tokenizers, tmp_path_factory):
    """Build a model by name, save and export it, once: the folder of its `model.keras` and `saved_model`."""
    folders = {}

    def classifier():
        tokenizer = tokenizers["word"]
        card = {
            "texts": {"tokenizer": tokenizer.get_config(), "max_length": 12},
            "class_names": ["negative", "positive"],
        }
        model = models.TextClassifier(tokenizer.vocabulary_size, 2, encoder="lstm", embed_dim=6, units=5, depth=1)
        return model, card

    def translator(make, **arguments):
        tokenizer = tokenizers["subword"]
        config = tokenizer.get_config()
        card = {"source": config, "target": config, "max_length": 9, "beam_size": 3, "length_penalty": 0.6}
        size = tokenizer.vocabulary_size
        return make(size, size, **arguments), {"translation": card}

    def language_model(unit, **arguments):
        tokenizer = tokenizers[unit]
        card = {"tokenizer": tokenizer.get_config(), "max_length": 70, "temperature": 0.5, "end": None}
        card |= {"start": None} if unit == "character" else {}
        return models.LanguageModel(tokenizer.vocabulary_size, **arguments), {"continuation": card}

    makers = {
        "classifier": classifier,
        "recurrent translator": lambda: translator(models.RecurrentTranslator, embed_dim=6, units=5),
        "transformer": lambda: translator(
            models.TransformerTranslator, embed_dim=8, hidden_dim=8, num_heads=2, depth=1, dropout=0.0
        ),
        "characters": lambda: language_model("character", cell="lstm", embed_dim=6, units=8, depth=1),
        "subwords": lambda: language_model(
            "subword", cell="transformer", embed_dim=8, num_heads=2, hidden_dim=8, depth=1, max_length=80
        ),
    }

    def folder(name: str):
        if name not in folders:
            keras.utils.set_random_seed(0)
            model, card = makers[name]()
            for variable in model.trainable_variables:  # random weights that say something
                variable.assign(2.0 * keras.random.normal(variable.shape))
            folders[name] = tmp_path_factory.mktemp(name.replace(" ", "_"))
            saving.save(model, folders[name] / "model.keras", card)
            export(folders[name])
        return folders[name]

    return folder


def by_tensorflow_alone(folder, arguments: dict) -> list:
    """The outputs of `serving_default`, as lists, in a process that can import neither Keras nor TensorFlow Text."""
    script = textwrap.dedent(f"""
        import sys, json
        for name in ("keras", "kseq", "keras_hub", "tensorflow_text"):
            sys.modules[name] = None
        import tensorflow as tf
        loaded = tf.saved_model.load({str(folder / "saved_model")!r})  # or its tables would be gone
        served = loaded.signatures["serving_default"]
        given = {{name: tf.constant(value) for name, value in json.load(sys.stdin).items()}}
        answer = served(**given)
        key = "text" if "text" in answer else "probabilities"
        print(json.dumps([x.decode() if isinstance(x, bytes) else x.tolist() for x in answer[key].numpy()]))
    """)
    done = subprocess.run([sys.executable, "-c", script], input=json.dumps(arguments), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_classifier_of_strings(build):
    folder = build("classifier")
    checks = json.loads((folder / "saved_model" / "kseq.json").read_text())["checks"]
    assert {(check["signature"], *check["shape"]) for check in checks} >= {
        ("serving_default", 1),
        ("serving_default", 5),
    }
    given = TEXTS + HOSTILE
    expected = [list(row.probabilities.values()) for row in predict(folder, given)]
    np.testing.assert_allclose(by_tensorflow_alone(folder, {"texts": given}), expected, atol=1e-5)
    served = predict(folder / "saved_model", given)
    assert [row.given for row in served] == given
    assert {row.kind for row in served} == {"text"}
    np.testing.assert_allclose([list(row.probabilities.values()) for row in served], expected, atol=1e-5)
    assert np.ptp([row[0] for row in expected]) > 0.05


@pytest.mark.parametrize("name", ["recurrent translator", "transformer"])
def test_a_translator_of_strings(build, name):
    folder = build(name)
    given = TEXTS + HOSTILE[:-1]
    expected = predict(folder, given)
    assert [(answer.kind, answer.given) for answer in expected] == [("translation", text) for text in given]
    assert len({answer.text for answer in expected}) > 2
    assert by_tensorflow_alone(folder, {"texts": given}) == [answer.text for answer in expected]
    assert predict(folder / "saved_model", given[:1]) == expected[:1]
    assert len(predict(folder / "saved_model", HOSTILE[-1:])) == 1


@pytest.mark.parametrize("name", ["characters", "subwords"])
def test_a_language_model_of_strings(build, name):
    folder = build(name)
    given = TEXTS[1:]
    drawn = {"temperature": 0.0, "seed": 3}
    expected = predict(folder, given, **drawn)
    for text, answer in zip(given, expected, strict=True):
        assert isinstance(answer, Answer)
        assert answer.text.startswith(text)
        assert len(answer.text) > len(text)
    assert by_tensorflow_alone(folder, {"texts": given, **drawn}) == [answer.text for answer in expected]
    hot = {"temperature": 1.0, "seed": 3}
    assert predict(folder / "saved_model", given, **hot) == predict(folder / "saved_model", given, **hot)
    assert predict(folder / "saved_model", given, **hot) != predict(folder / "saved_model", given, **hot | {"seed": 4})


def test_a_language_model_writes_piece_by_piece(build):
    folder = build("characters")
    pieces = list(stream(folder, ["an apple"], temperature=0.0))
    (answer,) = predict(folder, ["an apple"], temperature=0.0)
    assert len(pieces) > 20
    assert "".join(pieces) == answer.text
    assert stream(folder, ["an apple", "a day"]) is None
    assert stream(folder / "saved_model", ["an apple"]) is None


@pytest.mark.parametrize(
    ("name", "given", "drawn", "message"),
    [
        ("classifier", [], {}, "texts: none given"),
        ("classifier", ["a"], {"seed": 1}, "seed: only a language model draws"),
        ("characters", [""], {}, "there is nothing to begin with"),
        ("characters", ["an apple " * 20], {}, "180 tokens, and the model writes on up to 70 in all"),
        ("characters", ["a"], {"temperature": -1.0}, "temperature"),
    ],
)
def test_what_cannot_be_answered(build, name, given, drawn, message):
    with pytest.raises(InputError, match=message):
        predict(build(name), given, **drawn)


def test_a_prompt_that_is_too_long_for_the_graph(build):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(build("characters") / "saved_model"))
    arguments = {"temperature": tf.constant(1.0), "seed": tf.constant(0)}
    for text in ("", "an apple " * 20):
        with pytest.raises(tf.errors.InvalidArgumentError, match="1 to 69 tokens each can be continued"):
            loaded.signatures["serving_default"](texts=tf.constant([text]), **arguments)


@pytest.mark.parametrize("key", ["translation", "continuation"])
def test_a_card_of_another_model_is_refused(build, tokenizers, tmp_path, key):
    config = tokenizers["word"].get_config()
    cards = {"translation": {"source": config, "target": config, "max_length": 9}}
    cards["continuation"] = {"tokenizer": config, "max_length": 9}
    model = saving.load(build("classifier") / "model.keras", compile=False)
    saving.save(model, tmp_path / "model.keras", {key: cards[key]})
    with pytest.raises(InputError, match="save it with another card"):
        export(tmp_path / "model.keras")


@pytest.mark.parametrize("name", ["classifier", "recurrent translator", "transformer"])
def test_logits_as_onnx(build, name, tmp_path):
    path, record = export(build(name) / "model.keras", tmp_path / "model.onnx", format="onnx")
    assert path.is_file()
    assert [check["shape"] for check in record["checks"]] == [[1, 3], [5, 11]]
    assert record["largest_difference"] <= 1e-5


def test_the_command_line(build, monkeypatch, capfd):
    """Texts as a table, as JSON, and streamed; brackets in them are no markup."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["kseq", "predict", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capfd.readouterr().out

    translator = build("recurrent translator")
    (answer,) = predict(translator, ["[bold] apple"])
    (got,) = json.loads(run(str(translator / "saved_model"), "[bold] apple", "--json"))
    assert got == {"text": "[bold] apple", "translation": answer.text}
    assert "[bold] apple" in run(str(translator), "[bold] apple")
    assert "positive" in run(str(build("classifier") / "saved_model"), "an apple a day")
    assert run(str(build("characters")), "an apple", "--temperature", "0").startswith("an apple")


def test_bytes_that_are_no_text_and_many_texts(build):
    """A shell gives bytes that are not UTF-8 as halves of surrogate pairs; parts of many texts draw other numbers."""
    broken = ["an \udcff apple"]
    for folder in (build("classifier"), build("classifier") / "saved_model"):
        (answer,) = predict(folder, broken)
        assert answer.given == "an � apple"
    texts = [answer.text for answer in predict(build("characters"), ["an"] * 130, temperature=1.0, seed=3)]
    assert texts[0] != texts[128]
    assert texts == [answer.text for answer in predict(build("characters"), ["an"] * 130, temperature=1.0, seed=3)]


def test_a_vocabulary_of_another_model_is_refused(build, tokenizers, tmp_path):
    larger = Tokenizer.train([*TEXTS, "xylophones, quivers"], "word", 40, lowercase=True).get_config()
    assert len(larger["vocabulary"]) > tokenizers["word"].vocabulary_size
    card = {"texts": {"tokenizer": larger}, "class_names": ["negative", "positive"]}
    saving.save(saving.load(build("classifier") / "model.keras", compile=False), tmp_path / "classifier.keras", card)
    translation = {"source": larger, "target": tokenizers["subword"].get_config(), "max_length": 9}
    translator = saving.load(build("transformer") / "model.keras", compile=False)
    saving.save(translator, tmp_path / "translator.keras", {"translation": translation})
    for name in ("classifier", "translator"):
        for use in (export, lambda path: predict(path, ["an apple"])):
            with pytest.raises(InputError, match="save it with the tokenizer that it was trained with"):
                use(tmp_path / f"{name}.keras")
    saving.save(translator, tmp_path / "wide.keras", {"translation": translation | {"beam": 3}})
    with pytest.raises(InputError, match="'translation' has 'beam'"):
        export(tmp_path / "wide.keras")


def test_a_model_that_answers_more_than_logits_is_refused(tokenizers, tmp_path):
    size = tokenizers["word"].vocabulary_size
    model = models.TextClassifier(size, 2, embed_dim=6, units=5, depth=1, return_attention=True)
    card = {"texts": {"tokenizer": tokenizers["word"].get_config()}, "class_names": ["negative", "positive"]}
    saving.save(model, tmp_path / "model.keras", card)
    for use in (export, lambda path: predict(path, ["an apple"])):
        with pytest.raises(InputError, match="2 outputs and should answer logits alone"):
            use(tmp_path / "model.keras")
