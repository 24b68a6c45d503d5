import keras
import numpy as np

from kseq.layers import ClassToken
from tests import conformance

TOKENS = np.random.default_rng(2).normal(size=(3, 4, 5)).astype("float32")


def test_conformance(tmp_path):
    conformance.check_layer(lambda: ClassToken(initializer="normal"), TOKENS, tmp_path)


def test_the_token_stands_in_front():
    layer = ClassToken(initializer="normal")
    outputs = keras.ops.convert_to_numpy(layer(TOKENS))
    np.testing.assert_array_equal(outputs[:, 1:], TOKENS)
    np.testing.assert_array_equal(outputs[:, 0], np.repeat(layer.get_weights()[0][0], 3, axis=0))


def test_the_token_is_valid_where_others_are_masked():
    mask = np.array([[True, False, True, False]] * 3)
    expected = np.array([[True, True, False, True, False]] * 3)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(ClassToken().compute_mask(TOKENS, mask)), expected)
    assert ClassToken().compute_mask(TOKENS) is None
