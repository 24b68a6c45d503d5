import keras
import numpy as np
import pytest

from kseq import saving
from kseq.errors import InputError
from kseq.models import RecurrentTranslator
from kseq.models.registry import variants
from tests import conformance

random = np.random.default_rng(7)
SOURCE = random.integers(1, 11, (4, 5)).astype("int32")
TARGET = random.integers(1, 13, (4, 6)).astype("int32")
SOURCE[1, 3:] = SOURCE[2, 1:] = 0
TARGET[1, 4:] = TARGET[2, 1:] = 0
SMALL = {"embed_dim": 4, "units": 6}
DEEP = {"cell": "lstm", "attention": "luong", "score": "scaled", "decoder_depth": 2, "input_feeding": True}


@pytest.fixture(autouse=True)
def _clear_caches():
    yield
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()


@pytest.mark.parametrize(
    "arguments",
    [
        DEEP | {"tie_embeddings": True},
        {"attention": None, "feed_context": True, "output": "maxout", "initial_state": "backward"},
    ],
    ids=["luong", "cho"],
)
def test_conformance(arguments, tmp_path):
    def make():
        tokens = keras.Input((11,), dtype="int32")
        return keras.Model(tokens, RecurrentTranslator(13, 13, **SMALL | arguments)([tokens[:, :5], tokens[:, 5:]]))

    conformance.check_model(make, np.concatenate([SOURCE, TARGET], axis=1), tmp_path)


def test_a_saved_translator_is_the_same(tmp_path):
    model = RecurrentTranslator(11, 13, **SMALL, decoder_depth=2, encoder_depth=2, return_attention=True)
    saving.save(model, tmp_path / "model.keras")
    for got, expected in zip(
        saving.load(tmp_path / "model.keras").predict([SOURCE, TARGET], verbose=0),
        model.predict([SOURCE, TARGET], verbose=0),
        strict=True,
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("arguments", [{}, DEEP], ids=["bahdanau", "luong"])
def test_neither_padding_nor_later_tokens_change_an_answer(arguments):
    model = RecurrentTranslator(11, 13, **SMALL | arguments)
    # Batches of one shape, for the rounding of a row may depend on where it stands.
    source, target = SOURCE[1:3], TARGET[[0, 3]]
    changed, padded = target.copy(), target.copy()
    changed[:, 4:], padded[:, 4:] = 3, 0
    logits, changed, padded = (model.predict([source, tokens], verbose=0) for tokens in (target, changed, padded))
    np.testing.assert_array_equal(logits[:, :4], changed[:, :4])
    np.testing.assert_array_equal(logits[:, :4], padded[:, :4])
    assert np.abs(logits[:, 4:] - changed[:, 4:]).max() > 1e-4
    cut = model.predict([source[:, :3], target[:, :4]], verbose=0)
    np.testing.assert_allclose(cut, logits[:, :4], atol=1e-6)


def test_the_attention_of_a_trained_model():
    model = RecurrentTranslator(11, 13, **SMALL)
    shown = RecurrentTranslator(11, 13, **SMALL, return_attention=True)
    assert [layer.name for layer in shown.layers] == [layer.name for layer in model.layers]
    shown.set_weights(model.get_weights())
    logits, attention = shown.predict([SOURCE, TARGET], verbose=0)
    np.testing.assert_allclose(logits, model.predict([SOURCE, TARGET], verbose=0), atol=1e-6)
    assert attention.shape == (4, 6, 5)
    assert (attention[np.broadcast_to((SOURCE == 0)[:, None], attention.shape)] == 0).all()
    np.testing.assert_allclose(attention.sum(axis=-1), 1, atol=1e-5)


def test_it_learns_to_copy():
    tokens = random.integers(4, 9, (32, 4)).astype("int32")
    target = np.concatenate([np.full((32, 1), 2), tokens[:, :-1]], axis=1)
    model = RecurrentTranslator(9, 9, embed_dim=16, units=16, dropout=0)
    model.compile(
        keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    history = model.fit([tokens, target], tokens, epochs=40, batch_size=32, verbose=0).history
    assert history["accuracy"][-1] > 0.95


def gru(inputs, units):
    return 3 * (inputs * units + units * units + units)


def lstm(inputs, units):
    return 4 * (inputs * units + units * units + units)


def test_parameter_counts():
    counts = {name: variants()[name].parameters for name in ("recurrent_translator", "rnnsearch", "nmt_iwslt15")}
    # Embeddings, encoder, initial state, decoder, alignment, output.
    assert counts["recurrent_translator"] == (
        2 * 8000 * 256
        + 2 * (gru(256, 256) + 3 * 256)  # reset_after has a second bias
        + (512 + 1) * 256
        + (gru(256 + 512, 256) + 3 * 256)
        + (256 * 256 + (512 + 1) * 256 + 256)
        + (256 + 512 + 256 + 1) * 8000
    )
    assert counts["rnnsearch"] == (
        2 * 30_000 * 620
        + 2 * gru(620, 1000)
        + (1000 + 1) * 1000
        + gru(620 + 2000, 1000)
        + (1000 * 1000 + 2000 * 1000 + 1000)
        + (1000 + 2000 + 620 + 1) * 1000
        + (500 + 1) * 30_000
    )
    assert counts["nmt_iwslt15"] == (
        (17_191 + 7_709) * 512
        + 2 * lstm(512, 512)
        + (lstm(512, 512) + lstm(512 + 512, 512))
        + (1024 * 512 + 1)
        + (1024 + 512) * 512
        + (512 + 1) * 7_709
    )
    small = RecurrentTranslator(20, 30, embed_dim=5, units=4, encoder_units=3)
    expected = 2 * (gru(5, 3) + 9) + 7 * 4 + gru(11, 4) + 12 + 4 * 4 + 7 * 4 + 4 + 16 * 30 + 50 * 5
    assert small.count_params() == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "conv"}, "cell 'conv': choose one of rnn, gru, lstm"),
        ({"attention": "both"}, "attention 'both'"),
        ({"score": "scaled"}, "score 'scaled' with attention 'bahdanau'"),
        ({"units": 0}, "units 0: give 1 or more"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"output": "deep"}, "output 'deep': choose one of linear, maxout"),
        ({"initial_state": "zero"}, "initial_state 'zero': choose one of dense, backward, copy"),
        ({"initial_state": "copy"}, "2 encoder states of size 6 for 1 decoder layers of 6"),
        ({"initial_state": "backward", "bidirectional": False}, "initial_state 'backward' with bidirectional False"),
        ({"feed_context": True}, "feed_context True with attention 'bahdanau'"),
        ({"attention": None, "return_attention": True}, "return_attention True with attention None"),
        ({"input_feeding": True}, "input_feeding True with attention 'bahdanau'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        RecurrentTranslator(11, 13, **SMALL | arguments)


@pytest.mark.parametrize("arguments", [{}, DEEP], ids=["bahdanau", "luong"])
def test_it_trains_in_mixed_precision(arguments):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = RecurrentTranslator(11, 13, **SMALL | arguments)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [keras.ops.convert_to_numpy(variable).copy() for variable in model.trainable_variables]
    assert np.isfinite(model.fit([SOURCE, TARGET], TARGET, verbose=0).history["loss"]).all()
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert np.isfinite(new := keras.ops.convert_to_numpy(variable)).all()
        assert (new != old).any(), variable.path
