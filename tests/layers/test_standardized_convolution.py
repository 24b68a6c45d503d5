import keras
import numpy as np
import pytest

from kseq.layers import Convolution, StandardizedConvolution
from tests import conformance

random = np.random.default_rng(6)
IMAGES = random.normal(size=(2, 7, 6, 3)).astype("float32")


def test_conformance(tmp_path):
    conformance.check_layer(lambda: StandardizedConvolution(4, 3, strides=2, padding=1), IMAGES, tmp_path)


@pytest.mark.parametrize(
    ("inputs", "arguments"),
    [
        (IMAGES, {"kernel_size": 3, "strides": 2, "padding": 1, "epsilon": 0.1}),
        (IMAGES, {"kernel_size": 1, "use_bias": False}),
        (random.normal(size=(2, 4, 5, 6, 2)).astype("float32"), {"kernel_size": 3}),
    ],
)
def test_it_is_a_convolution_of_standardised_filters(inputs, arguments):
    layer = StandardizedConvolution(4, **arguments)
    layer.build(inputs.shape)
    kernel, *bias = (3 + random.normal(size=w.shape) for w in layer.get_weights())
    layer.set_weights([kernel, *bias])
    epsilon = arguments.get("epsilon", 1e-5)
    filters = kernel.reshape(-1, 4)
    standard = (filters - filters.mean(axis=0)) / np.sqrt(filters.var(axis=0) + epsilon)
    plain = Convolution(4, **{key: value for key, value in arguments.items() if key != "epsilon"})
    plain.build(inputs.shape)
    plain.set_weights([standard.reshape(kernel.shape), *bias])
    got, expected = (keras.ops.convert_to_numpy(one(inputs)) for one in (layer, plain))
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_scale_and_shift_of_a_filter_do_not_matter():
    layer = StandardizedConvolution(4, 3, use_bias=False)
    before = keras.ops.convert_to_numpy(layer(IMAGES))
    (kernel,) = layer.get_weights()
    layer.set_weights([kernel * np.array([5, 2, 1, 9]) + np.array([1, 0, -1, 3])])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(IMAGES)), before, atol=1e-2)


def test_statistics_are_those_of_the_kernel_before_it_is_rounded():
    """Of a kernel far from 0 half precision keeps nothing."""
    half, whole = (StandardizedConvolution(4, 3, use_bias=False, dtype=d) for d in ("mixed_bfloat16", "float32"))
    for layer in (half, whole):
        layer.build(IMAGES.shape)
    half.set_weights([whole.get_weights()[0] + 100])
    got, expected = (keras.ops.convert_to_numpy(keras.ops.cast(layer(IMAGES), "float32")) for layer in (half, whole))
    np.testing.assert_allclose(got, expected, atol=0.02 * np.abs(expected).max())
