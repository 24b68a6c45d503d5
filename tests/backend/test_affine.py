import keras
import numpy as np
import pytest

from kseq.backend.affine import affine, portable_affine
from kseq.layers import Dense
from tests.gradients import gradients


@pytest.mark.parametrize("with_bias", [True, False])
def test_both_forms_are_the_equation_and_have_its_gradients(with_bias):
    random = np.random.default_rng(0)
    rows, kernel, bias, weights = (random.normal(size=s).astype("float32") for s in ((5, 3), (3, 4), (4,), (5, 4)))
    bias = bias if with_bias else None
    arrays = [rows, kernel] + [bias] * with_bias
    expected = [weights @ kernel.T, rows.T @ weights, weights.sum(axis=0)]
    for form in (affine, portable_affine):
        got = form(*map(keras.ops.convert_to_tensor, arrays), *[None] * (not with_bias))
        np.testing.assert_allclose(keras.ops.convert_to_numpy(got), rows @ kernel + (bias if with_bias else 0), 1e-5)

        def loss(*tensors, form=form):
            return keras.ops.sum(keras.ops.multiply(form(*tensors, *[None] * (not with_bias)), weights))

        for one, other in zip(gradients(loss, arrays), expected, strict=False):
            np.testing.assert_allclose(one, other, 1e-5, 1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_a_layer_in_half_precision_answers_in_it(policy):
    layer = Dense(4, dtype=policy)
    outputs = layer(np.ones((2, 3, 5), "float32"))
    assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype
    expected = np.ones((2, 3, 5)) @ keras.ops.convert_to_numpy(keras.ops.cast(layer.kernel, "float32"))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32")), expected, 2e-2, 2e-2)
