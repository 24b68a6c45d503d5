from functools import partial

import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.layers import NonLocalBlock
from kseq.layers.non_local_block import MODES
from tests import conformance

random = np.random.default_rng(9)
X = random.normal(size=(2, 4, 6, 6)).astype("float32")


@pytest.mark.parametrize("mode", ["embedded_gaussian", "concatenation"])
def test_conformance(mode, tmp_path):
    def make():
        return NonLocalBlock(mode, channels=4, pool=True, gamma_initializer="ones", kernel_initializer="he_normal")

    conformance.check_layer(make, X, tmp_path)


@pytest.mark.parametrize("mode", MODES)
def test_it_is_the_identity_at_first(mode):
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(NonLocalBlock(mode)(X, training=True)), X)


def affine(weights, x):
    kernel, *bias = weights
    return x @ kernel + sum(bias)


@pytest.mark.parametrize("mode", ["embedded_gaussian", "dot_product"])
def test_it_is_the_equation(mode):
    layer = NonLocalBlock(mode, channels=3, gamma_initializer="ones", kernel_initializer="he_normal")
    layer.build(X.shape)
    x = X.reshape(2, 24, 6).astype("float64")
    dense = [layer.theta, layer.phi, layer.g, layer.output_projection]
    for one in dense:
        one.set_weights([random.normal(size=w.shape) for w in one.get_weights()])
    theta, phi, g, W = (partial(affine, one.get_weights()) for one in dense)
    f = theta(x) @ phi(x).swapaxes(1, 2)
    if mode == "embedded_gaussian":
        f = np.exp(f / np.sqrt(3))
        f /= f.sum(axis=-1, keepdims=True)
    else:
        f /= 24
    y = W(f @ g(x)).reshape(X.shape)
    outputs, weights = layer(X, return_attention_scores=True)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(weights), f, atol=1e-5)
    for got in (outputs, layer(X)):  # moving statistics are 0 and 1
        np.testing.assert_allclose(keras.ops.convert_to_numpy(got), X + y / np.sqrt(1 + 1e-5), atol=1e-4)
    entry = keras.Input(X.shape[1:])
    symbolic = layer(entry, return_attention_scores=True)
    assert [tensor.shape[1:] for tensor in symbolic] == [X.shape[1:], (24, 24)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "cosine"}, "mode 'cosine': choose one of 'embedded_gaussian'"),
        ({"channels": 0}, "channels 0: give 1 or more"),
        ({"pool": 9}, r"size \(9, 9\): larger than the input"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        NonLocalBlock(**arguments)(X)


def test_unknown_sizes():
    with pytest.raises(InputError, match="give a known size to every axis but the batch"):
        NonLocalBlock()(keras.Input((None, 4, 2)))


@pytest.mark.parametrize("mode", MODES)
def test_its_precision_is_its_own(mode):
    keras.config.set_dtype_policy("mixed_float16")
    layer = NonLocalBlock(mode, pool=True, gamma_initializer="ones", kernel_initializer="he_normal", dtype="float32")
    outputs = layer(X)
    keras.config.set_dtype_policy("float32")
    same = NonLocalBlock(mode, pool=True)
    same.build(X.shape)
    same.set_weights(layer.get_weights())
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (outputs, same(X))))


def test_the_dot_product_does_not_overflow():
    """Σ φ g is above the largest float16 (65,504), θ small."""
    half, whole = (
        NonLocalBlock("dot_product", gamma_initializer="ones", dtype=d) for d in ("mixed_float16", "float32")
    )
    for layer in (half, whole):
        layer.build(X.shape)
    for name, scale in (("theta", 2e-4), ("phi", 500), ("g", 500), ("output_projection", 0.1)):
        kernel, *bias = getattr(whole, name).get_weights()
        for layer in (half, whole):
            getattr(layer, name).set_weights([np.full(kernel.shape, scale), *bias])
    x = np.abs(X)
    got, expected = (keras.ops.convert_to_numpy(layer(x)).astype("float32") for layer in (half, whole))
    np.testing.assert_allclose(got, expected, rtol=1e-2)
