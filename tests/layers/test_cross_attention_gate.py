import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.layers import CrossAttentionGate, SinusoidalPositionEncoding
from tests.layers import attention_reference as reference

random = np.random.default_rng(11)
SKIP = random.normal(size=(2, 4, 8, 8)).astype("float32")
DEEP = random.normal(size=(2, 2, 4, 12)).astype("float32")


def test_it_is_the_equation():
    layer = CrossAttentionGate(2)
    gate, weights = layer([SKIP, DEEP], return_attention_scores=True)
    np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (layer([SKIP, DEEP]), gate)), atol=1e-5)
    scale = 1 / np.sqrt(1 + 1e-5)  # of a batch normalisation that has seen nothing
    pooled = SKIP.reshape(2, 2, 2, 4, 2, 8).max(axis=(2, 4))
    code = keras.ops.convert_to_numpy(SinusoidalPositionEncoding()(np.zeros((1, 2, 4, 8), "float32")))
    skip, deep = (
        (np.maximum(x @ getattr(layer, f"{name}_projection").get_weights()[0][0, 0], 0) * scale + code).reshape(2, 8, 8)
        for x, name in ((pooled, "skip"), (DEEP, "deep"))
    )
    q, k, v, o = layer.attention.get_weights()
    zeros = np.zeros(8)
    everywhere = np.ones((2, 2, 8, 8), bool)
    attended, A = reference.multi_head([q, zeros, k, zeros, v, zeros, o, zeros], 2, deep, deep, skip, everywhere)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(weights), A, atol=1e-5)
    coarse = (1 / (1 + np.exp(-attended * scale))).reshape(2, 2, 4, 8)
    corners = keras.ops.convert_to_numpy(gate)[:, ::3, ::7]  # which interpolation leaves as they are
    np.testing.assert_allclose(corners, coarse[:, ::1, ::3], atol=1e-5)
    assert gate.shape == SKIP.shape


def test_few_positions():
    layer = CrossAttentionGate(2, max_positions=4, normalization=None)
    gate, weights = layer([SKIP, DEEP], return_attention_scores=True)
    assert weights.shape == (2, 2, 4, 4)  # 2 × 4 places, halved along the longer axis
    assert gate.shape == SKIP.shape
    assert not np.allclose(*(keras.ops.convert_to_numpy(gate)[0, :, i] for i in (0, -1)))
    symbolic = layer([keras.Input(SKIP.shape[1:]), keras.Input(DEEP.shape[1:])], return_attention_scores=True)
    assert [tensor.shape[1:] for tensor in symbolic] == [SKIP.shape[1:], (2, 4, 4)]
    assert CrossAttentionGate.from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("arguments", "shapes", "message"),
    [
        ({"max_positions": 0}, (SKIP.shape, DEEP.shape), "max_positions 0: give 1 or more, or None"),
        ({"num_heads": 3}, (SKIP.shape, DEEP.shape), "num_heads 3: does not divide"),
        ({"num_heads": 2}, ((1, 5, 8, 8), DEEP.shape), "each of the first a multiple of that of the second"),
        ({"num_heads": 2, "max_positions": 2}, ((1, 6, 6, 8), (1, 3, 3, 8)), r"grid \(3, 3\) cannot be halved"),
    ],
)
def test_bad_arguments(arguments, shapes, message):
    with pytest.raises(InputError, match=message):
        CrossAttentionGate(**arguments).build(shapes)


@pytest.mark.parametrize("normalization", ["batch", None])
def test_its_precision_is_its_own(normalization):
    keras.config.set_dtype_policy("mixed_float16")
    layer = CrossAttentionGate(2, normalization=normalization, dtype="float32")
    gate = layer([SKIP, DEEP])
    keras.config.set_dtype_policy("float32")
    same = CrossAttentionGate(2, normalization=normalization)
    same.build((SKIP.shape, DEEP.shape))
    same.set_weights(layer.get_weights())
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (gate, same([SKIP, DEEP]))))
