import math

import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.layers import FeedForward
from tests import conformance

random = np.random.default_rng(3)
X = random.normal(size=(2, 4, 3)).astype("float32")


@pytest.mark.parametrize("arguments", [{}, {"activation": "relu", "dropout": 0.3, "use_bias": False}])
def test_conformance(arguments, tmp_path):
    conformance.check_layer(lambda: FeedForward(6, **arguments), X, tmp_path)


def test_it_is_the_equation_with_the_exact_gelu():
    layer = FeedForward(6)
    layer.build(X.shape)
    W1, b1, W2, b2 = weights = [random.normal(size=w.shape) for w in layer.get_weights()]
    layer.set_weights(weights)
    hidden = X @ W1 + b1
    hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(X)), hidden @ W2 + b2, atol=1e-5)


def test_the_tanh_form_of_gelu():
    exact, tanh = FeedForward(6), FeedForward(6, activation="gelu_tanh")
    exact.build(X.shape)
    tanh.build(X.shape)
    W1, b1, W2, b2 = weights = [random.normal(size=w.shape) for w in exact.get_weights()]
    exact.set_weights(weights)
    tanh.set_weights(weights)
    h = X @ W1 + b1
    hidden = h * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    got = keras.ops.convert_to_numpy(tanh(X))
    np.testing.assert_allclose(got, hidden @ W2 + b2, atol=1e-5)
    assert np.abs(got - keras.ops.convert_to_numpy(exact(X))).max() > 1e-4


def test_a_function_may_be_the_initializer():
    layer = FeedForward(6, kernel_initializer=lambda shape, dtype: keras.ops.full(shape, 0.5, dtype))
    layer.build(X.shape)
    np.testing.assert_array_equal(layer.get_weights()[0], np.full((3, 6), 0.5))


@pytest.mark.parametrize(("arguments", "message"), [({"hidden_dim": 0}, "hidden_dim 0"), ({"dropout": 1}, "dropout 1")])
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        FeedForward(**{"hidden_dim": 2} | arguments)
