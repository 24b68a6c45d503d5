import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.models import CharTagger
from tests import conformance

random = np.random.default_rng(3)
WORDS = random.integers(1, 27, (6, 9)).astype("int32")
for row, length in enumerate((9, 5, 1, 7, 3, 9)):
    WORDS[row, length:] = 0

CONFIGURATIONS = {
    "default": {},
    "elman": {"cell": "rnn", "bidirectional": False, "embedding": "one_hot", "dropout": 0, "character_dropout": 0},
    "deep gru": {"cell": "gru", "depth": 3},
    "per step": {"bidirectional": False, "per_step": True, "depth": 2},
    "static": {"max_length": 9},
}


@pytest.mark.parametrize("arguments", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_conformance(arguments, tmp_path):
    conformance.check_model(lambda: CharTagger(27, 4, **{"units": 5, "embedding": 3} | arguments), WORDS, tmp_path)


@pytest.mark.parametrize("arguments", [v for k, v in CONFIGURATIONS.items() if k != "static"])
def test_padding_cannot_change_an_answer(arguments):
    padded = np.pad(WORDS[1:5], ((0, 0), (0, 4)))
    conformance.check_padding(CharTagger(27, 4, **{"units": 5} | arguments), padded, length=7)


def test_elman_network_is_the_equation():
    model = CharTagger(27, 4, units=5, **CONFIGURATIONS["elman"])
    U, W, b, V, c = _randomized(model)
    for tokens, logits in zip(WORDS, model.predict(WORDS, verbose=0), strict=True):
        h = np.zeros(5)
        for token in tokens[tokens > 0]:
            h = np.tanh(np.eye(26)[token - 1] @ U + h @ W + b)  # h_t = f(U x_t + W h_{t-1} + b)
        np.testing.assert_allclose(logits, h @ V + c, atol=1e-5)


def test_bidirectional_lstm_is_the_equations():
    model = CharTagger(27, 4, units=5, embedding=3)
    table, *directions, V, c = _randomized(model)
    for tokens, logits in zip(WORDS, model.predict(WORDS, verbose=0), strict=True):
        x = table[tokens[tokens > 0]]
        states = [_lstm(x, *directions[:3]), _lstm(x[::-1], *directions[3:])]
        np.testing.assert_allclose(logits, np.concatenate(states) @ V + c, atol=1e-5)


def test_per_step_is_the_class_of_every_prefix():
    arguments = {"units": 5, "bidirectional": False, "depth": 2}
    whole, steps = CharTagger(27, 4, **arguments), CharTagger(27, 4, per_step=True, **arguments)
    steps.set_weights(whole.get_weights())
    word = WORDS[:1]
    prefixes = [whole.predict(word[:, :end], verbose=0)[0] for end in range(1, 10)]
    np.testing.assert_allclose(steps.predict(word, verbose=0)[0], prefixes, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "conv"}, "cell 'conv': choose one of rnn, gru, lstm"),
        ({"embedding": "two_hot"}, "embedding 'two_hot'"),
        ({"embedding": 0}, "embedding 0"),
        ({"units": 0}, "units 0: give 1 or more"),
        ({"depth": 0}, "depth 0: give 1 or more"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"character_dropout": -0.1}, "character_dropout -0.1"),
        ({"per_step": True}, "set bidirectional=False"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        CharTagger(27, 4, **arguments)


def _randomized(model: keras.Model) -> list[np.ndarray]:
    """Give every weight (biases too) random values; return them as float64."""
    weights = [random.normal(size=weight.shape) for weight in model.get_weights()]
    model.set_weights(weights)
    return weights


def _lstm(x: np.ndarray, kernel: np.ndarray, recurrent_kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    h = c = np.zeros(len(recurrent_kernel))
    for x_t in x:
        i, f, g, o = np.split(x_t @ kernel + h @ recurrent_kernel + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h
