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
