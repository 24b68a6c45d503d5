import keras
import numpy as np
import pytest
from keras import ops

from kseq import saving
from kseq.layers import ReversibleEmbedding
from tests import conformance

random = np.random.default_rng(2)
TOKENS = np.array([[3, 1, 4, 0], [2, 0, 0, 0]], "int32")


def array(tensor) -> np.ndarray:
    return ops.convert_to_numpy(tensor)


def test_conformance(tmp_path):
    conformance.check_layer(lambda: ReversibleEmbedding(5, 3, scale=True), TOKENS, tmp_path)


@pytest.mark.parametrize("tie_weights", [True, False])
def test_vectors_are_rows_of_the_table_and_logits_products_with_them(tie_weights):
    layer = ReversibleEmbedding(5, 4, scale=True, use_bias=True, tie_weights=tie_weights)
    layer.build()
    layer.set_weights([random.normal(size=w.shape) for w in layer.get_weights()])
    table, *kernel, bias = layer.get_weights()
    kernel = table.T if tie_weights else kernel[0]
    np.testing.assert_allclose(array(layer(TOKENS)), 2 * table[TOKENS], atol=1e-6)
    for shape in ((3, 4), (3, 2, 4)):
        x = random.normal(size=shape).astype("float32")
        np.testing.assert_allclose(array(layer(x, reverse=True)), x @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize("size", [3, 4])
def test_tokens_of_any_type_have_a_mask_and_vectors_have_none(size):
    """Also where the tokens are as many as a vector has numbers."""
    layer = ReversibleEmbedding(5, size, mask_zero=True)
    tokens = keras.Input((None,))  # float32, as Keras has it
    x = layer(tokens)
    assert keras.src.backend.get_keras_mask(x).shape == (None, None)
    assert keras.src.backend.get_keras_mask(layer(x, reverse=True)) is None
    model = keras.Model(tokens, keras.layers.SimpleRNN(2, return_sequences=True)(x))
    whole = model.predict(TOKENS.astype("float32"), verbose=0)
    np.testing.assert_allclose(whole[1, 1:], np.repeat(whole[1:, 0], 3, axis=0), atol=1e-6)  # the state stays
    for dtype in ("int32", "float32"):
        mask = keras.src.backend.get_keras_mask(layer(ops.cast(TOKENS, dtype)))
        np.testing.assert_array_equal(array(mask), TOKENS != 0)


def test_a_saved_model_keeps_table_bias_and_mask(tmp_path):
    layer = ReversibleEmbedding(5, 3, use_bias=True, mask_zero=True, name="embedding")
    tokens = keras.Input((None,), dtype="int32")
    x = layer(tokens)
    assert keras.src.backend.get_keras_mask(x).shape == (None, None)
    model = keras.Model(tokens, layer(keras.layers.SimpleRNN(3, return_sequences=True)(x), reverse=True))
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
    expected = model.predict(TOKENS, verbose=0)
    saving.save(model, tmp_path / "model.keras")
    again = saving.load(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(TOKENS, verbose=0), expected)
    np.testing.assert_allclose(expected[1, 1:], np.repeat(expected[1:, 0], 3, axis=0), atol=1e-6)  # the state stays
