import keras
import numpy as np
import pytest
from keras import ops

from kseq.errors import InputError
from kseq.layers import LSTM
from kseq.models import TextClassifier, copy_encoder
from tests import conformance

random = np.random.default_rng(3)
TOKENS = random.integers(1, 11, (6, 7)).astype("int32")
for row, length in enumerate((7, 5, 1, 7, 3, 0)):
    TOKENS[row, length:] = 0
SMALL = {"embed_dim": 6, "units": 4, "depth": 1, "num_heads": 2, "hidden_dim": 8, "attention_dim": 3}

TRANSFORMER = {"encoder": "transformer", "pooling": "mean"}
CAUSAL = TRANSFORMER | {"causal": True, "positions": "learned", "max_length": 7, "attention_dropout": 0.1}


def test_conformance(tmp_path):
    conformance.check_model(lambda: TextClassifier(11, 3, **SMALL, embedding_dropout=0.1), TOKENS, tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [{"depth": 2}, {"encoder": "gru", "bidirectional": False, "pooling": "concat"}, TRANSFORMER],
    ids=["bilstm", "gru", "transformer"],
)
def test_padding_cannot_change_an_answer(arguments):
    padded = np.pad(TOKENS[1:3], ((0, 0), (0, 4)))
    conformance.check_padding(TextClassifier(11, 3, **SMALL | arguments), padded, length=5)


def test_last_pooling_is_the_last_state_of_each_direction():
    model = TextClassifier(11, 3, **SMALL | {"depth": 2}, pooling="last")
    layers = keras.layers
    x = tokens = keras.Input((None,), dtype="int32")
    x = layers.Rescaling(6**0.5)(layers.Embedding(11, 6, mask_zero=True)(x))
    x = layers.Bidirectional(LSTM(4, return_sequences=True))(x)
    x = layers.Bidirectional(LSTM(4))(x)
    peer = keras.Model(tokens, layers.Dense(3)(x))
    peer.set_weights(model.get_weights())
    np.testing.assert_allclose(peer.predict(TOKENS, verbose=0), model.predict(TOKENS, verbose=0), atol=1e-6)


def test_attention_is_returned_by_the_same_model():
    plain, both = (TextClassifier(11, 3, **SMALL, return_attention=value) for value in (False, True))
    assert [w.path for w in plain.weights] == [w.path for w in both.weights]
    both.set_weights(plain.get_weights())
    logits, weights = both.predict(TOKENS, verbose=0)
    np.testing.assert_allclose(logits, plain.predict(TOKENS, verbose=0), atol=1e-6)
    assert weights.shape == TOKENS.shape
    assert (weights[TOKENS == 0] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), [1, 1, 1, 1, 1, 0], atol=1e-6)


def test_a_causal_state_does_not_see_what_comes():
    model = TextClassifier(11, 3, **SMALL | CAUSAL)
    states = keras.Model(model.inputs, model.get_layer("norm").output)
    changed = TOKENS[:1].copy()
    changed[:, 4:] = 3
    one, other = (states.predict(tokens, verbose=0) for tokens in (TOKENS[:1], changed))
    np.testing.assert_array_equal(one[:, :4], other[:, :4])
    assert np.abs(one[:, 4:] - other[:, 4:]).max() > 1e-3


def test_the_encoder_of_one_model_goes_into_another():
    arguments = SMALL | {"bidirectional": False}
    source, target = TextClassifier(11, 4, **arguments), TextClassifier(11, 2, **arguments | {"pooling": "concat"})
    head = target.get_layer("logits").get_weights()
    assert copy_encoder(source, target) == ["embedding", "recurrent_0"]
    np.testing.assert_array_equal(target.get_layer("logits").get_weights()[0], head[0])
    for name in ("embedding", "recurrent_0"):
        for theirs, ours in zip(source.get_layer(name).weights, target.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(theirs), ops.convert_to_numpy(ours))
    target.compile("sgd", "mean_squared_error")
    target.fit(TOKENS, np.zeros((6, 2)), verbose=0)  # which would delete arrays that both have on JAX
    assert np.isfinite(source.get_weights()[0]).all()


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        ({}, {"vocabulary_size": 12}, r"embedding: embeddings is \(12, 6\), in the source \(11, 6\)"),
        ({"bidirectional": False}, {}, "recurrent_0: .* no such weight; build both .* bidirectional=False"),
        ({"encoder": "gru", "bidirectional": False}, {"bidirectional": False}, "recurrent_0: .* no such weight"),
        (
            {"encoder": "transformer"},
            {"encoder": "transformer", "num_heads": 3},
            "block_0: num_heads is 3, in the source 2",
        ),
        ({}, {"encoder": "transformer", "positions": "learned", "max_length": 5}, "embedding: scale is False"),
    ],
)
def test_encoders_that_do_not_fit(theirs, ours, message):
    models = [TextClassifier(**{"vocabulary_size": 11, "num_classes": 3} | SMALL | more) for more in (theirs, ours)]
    before = models[1].get_weights()
    with pytest.raises(InputError, match=message):
        copy_encoder(*models)
    for old, new in zip(before, models[1].get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_models_that_share_no_layer():
    model = TextClassifier(11, 3, **SMALL)
    x = keras.Input((2,))
    with pytest.raises(InputError, match="shares no layer with text_classifier"):
        copy_encoder(keras.Model(x, keras.layers.Dense(1)(x)), model)
    with pytest.raises(InputError, match=r"layers \['block_0'\]: not in both models"):
        copy_encoder(model, model, layers=["block_0"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder": "conv"}, "encoder 'conv': choose one of rnn, gru, lstm, transformer"),
        ({"pooling": "sum"}, "pooling 'sum': choose one of last"),
        ({"positions": "none"}, "positions 'none'"),
        ({"encoder": "transformer", "positions": "learned"}, "give max_length"),
        ({"units": 0}, "units 0: give 1 or more"),
        ({"vocabulary_size": 0}, "vocabulary_size 0"),
        ({"dropout": 1.0}, "dropout 1.0: give a share"),
        ({"embedding_dropout": -0.1}, "embedding_dropout -0.1"),
        ({"pooling": "mean", "return_attention": True}, "pooling 'mean' has no weights"),
        ({"encoder": "transformer", "num_heads": 5}, "num_heads 5"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        TextClassifier(**{"vocabulary_size": 11, "num_classes": 3} | SMALL | arguments)
