import keras
import numpy as np
import pytest

from kseq.layers import Dense
from tests import conformance
from tests.gradients import gradients

random = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(4, 3), (2, 5, 3), (2, 2, 3, 2, 3)])
def test_conformance(shape, tmp_path):
    inputs = random.normal(size=shape).astype("float32")
    conformance.check_layer(lambda: Dense(7, activation="relu"), inputs, tmp_path)


def test_outputs_and_gradients_are_those_of_keras():
    ours, theirs = Dense(7, activation="tanh"), keras.layers.Dense(7, activation="tanh")
    x = random.normal(size=(2, 5, 4, 3)).astype("float32")
    ours.build(x.shape)
    theirs.build(x.shape)
    theirs.set_weights([random.normal(size=w.shape) for w in ours.get_weights()])
    ours.set_weights(theirs.get_weights())
    np.testing.assert_allclose(*(keras.ops.convert_to_numpy(layer(x)) for layer in (ours, theirs)), atol=1e-6)
    (ours_x,), (theirs_x,) = (
        gradients(lambda x, layer=layer: keras.ops.sum(layer(x) ** 2), [x]) for layer in (ours, theirs)
    )
    np.testing.assert_allclose(ours_x, theirs_x, atol=1e-5)


def test_any_length():
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, Dense(2)(inputs))
    assert model.output_shape == (None, None, 2)
    for length in (1, 4):
        assert model.predict(np.ones((2, length, 3), "float32"), verbose=0).shape == (2, length, 2)
