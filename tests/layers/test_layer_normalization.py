import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import LayerNormalization
from tests import conformance
from tests.gradients import gradients

random = np.random.default_rng(8)
X = (3 * random.normal(size=(4, 5, 6)) + 10).astype("float32")


@pytest.mark.parametrize("arguments", [{}, {"axis": [1, 2]}, {"center": False}])
def test_conformance(arguments, tmp_path):
    conformance.check_layer(lambda: LayerNormalization(**arguments), X, tmp_path)


@pytest.mark.parametrize("arguments", [{}, {"axis": [1, 2]}, {"center": False}, {"scale": False}])
def test_outputs_and_gradients_are_those_of_keras(arguments):
    ours, theirs = (kind(epsilon=1e-5, **arguments) for kind in (LayerNormalization, keras.layers.LayerNormalization))
    ours.build(X.shape)
    theirs.build(X.shape)
    for layer in (ours, theirs):
        layer.set_weights([np.random.default_rng(9).normal(size=w.shape) for w in layer.get_weights()])
    np.testing.assert_allclose(*(ops.convert_to_numpy(layer(X)) for layer in (ours, theirs)), atol=1e-5)
    weight = random.normal(size=X.shape).astype("float32")
    found = [
        gradients(lambda x, layer=layer, more=more: ops.sum(layer(x, **more) * ops.convert_to_tensor(weight)), [X])
        for layer, more in ((ours, {"training": True}), (theirs, {}))
    ]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


def test_gradients_of_the_weights_are_those_of_keras():
    steps = []
    for kind in (LayerNormalization, keras.layers.LayerNormalization):
        x = keras.Input(X.shape[1:])
        model = keras.Model(x, kind()(x))
        model.compile(keras.optimizers.SGD(1.0), "mean_squared_error")
        model.fit(X, X[::-1].copy(), verbose=0)
        steps.append(model.get_weights())
    for a, b in zip(*steps, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_statistics_are_float32_in_mixed_precision():
    x = X + 1000  # a bfloat16 mean would be off by 4
    got = ops.convert_to_numpy(ops.cast(LayerNormalization(dtype="mixed_bfloat16", autocast=False)(x), "float32"))
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(got, expected, atol=0.02)
