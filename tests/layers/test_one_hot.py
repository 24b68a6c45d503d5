import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.layers import OneHot
from tests import conformance

TOKENS = np.array([[1, 2, 3, 0], [4, 0, 0, 0]], dtype="int32")


def test_conformance(tmp_path):
    conformance.check_layer(lambda: OneHot(5), TOKENS, tmp_path)


def test_unit_vectors_and_zero_padding():
    expected = np.zeros((2, 4, 4), dtype="float32")
    for row, column in zip(*np.nonzero(TOKENS), strict=True):
        expected[row, column, TOKENS[row, column] - 1] = 1
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(OneHot(5)(TOKENS)), expected)


def test_large_tokens_are_not_rounded_in_mixed_precision():
    tokens = np.array([[256, 257, 258]], dtype="int32")  # bfloat16 cannot tell 257 from 256
    vectors = keras.ops.convert_to_numpy(OneHot(300, dtype="mixed_bfloat16")(tokens))
    np.testing.assert_array_equal(vectors.astype("float32").argmax(axis=-1), tokens - 1)


def test_mask():
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(OneHot(5).compute_mask(TOKENS)), TOKENS != 0)


def test_vocabulary_size_out_of_range():
    with pytest.raises(InputError, match="vocabulary_size 1: give 2 or more"):
        OneHot(1)
