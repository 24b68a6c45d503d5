import keras
import numpy as np
import pytest

from kseq.backend.batch_norm import batch_norm, fixed_batch_norm, portable_batch_norm
from tests.backend.test_convolution import check_same

SHAPES = [(7, 3), (3, 5, 1), (2, 3, 4, 3), (2, 2, 3, 2, 4)]


def inputs(shape):
    random = np.random.default_rng(len(shape))
    x = 3 + 2 * random.normal(size=shape)
    return [array.astype("float32") for array in (x, *random.normal(size=(2, shape[-1])))]


@pytest.mark.parametrize("shape", SHAPES)
def test_chosen_and_portable_forms_agree(shape):
    tensors = inputs(shape)
    check_same(*(lambda *t, form=form: form(*t, 1e-3)[0] for form in (batch_norm, portable_batch_norm)), tensors)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_equation_with_the_biased_variance(shape):
    x, gamma, beta = inputs(shape)
    axes = tuple(range(len(shape) - 1))
    mean, variance = x.mean(axes), x.var(axes)
    expected = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta, mean, variance
    found = batch_norm(*map(keras.ops.convert_to_tensor, (x, gamma, beta)), 1e-3)
    fixed = fixed_batch_norm(*map(keras.ops.convert_to_tensor, (x, mean, variance, gamma, beta)), 1e-3)
    for one, two in zip((*found, fixed), (*expected, expected[0]), strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(one), two, rtol=1e-5, atol=1e-5)


def test_given_statistics_are_constants():
    """The gradient to the inputs is γ / √(σ² + ε), nothing more."""
    x, gamma, beta = inputs((2, 3, 4, 3))
    mean, variance = map(keras.ops.convert_to_tensor, (x.mean((0, 1, 2)), x.var((0, 1, 2))))

    def plain(x, gamma, beta):
        return gamma * (x - mean) / keras.ops.sqrt(variance + 1e-3) + beta

    check_same(lambda x, *channels: fixed_batch_norm(x, mean, variance, *channels, 1e-3), plain, [x, gamma, beta])
