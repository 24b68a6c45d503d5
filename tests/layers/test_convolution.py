import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.layers import Convolution, TransposedConvolution
from tests import conformance

random = np.random.default_rng(6)


def numbers(*shape):
    return random.normal(size=shape).astype("float32")


LAYERS = {
    "1-D": ((2, 7, 3), lambda: Convolution(4, 3, strides=2)),
    "3-D": ((1, 4, 3, 4, 2), lambda: Convolution(3, 3, padding=1)),
    "transposed": ((1, 3, 2, 2), lambda: TransposedConvolution(3, 2, kernel_size=3)),
}


@pytest.mark.parametrize(("shape", "make"), LAYERS.values(), ids=LAYERS)
def test_conformance(shape, make, tmp_path):
    conformance.check_layer(make, numbers(*shape), tmp_path)


CASES = {  # input, size, strides, padding
    "same": ((2, 5, 6, 3), (3, 2), 1, "same"),
    "strides": ((2, 6, 7, 3), 3, 2, "same"),
    "valid": ((2, 6, 7, 3), 3, (1, 2), "valid"),
    "zeros": ((2, 6, 7, 3), 3, 2, (1, 2)),
    "one place": ((2, 6, 7, 3), 1, 1, "same"),
    "volume": ((1, 4, 3, 5, 2), (3, 1, 3), (2, 1, 2), 1),
}


@pytest.mark.parametrize(("shape", "size", "strides", "padding"), CASES.values(), ids=CASES)
def test_it_is_the_sum(shape, size, strides, padding):
    layer, x = Convolution(4, size, strides=strides, padding=padding, bias_initializer="ones"), numbers(*shape)
    outputs = keras.ops.convert_to_numpy(layer(x))
    kernel, bias = layer.get_weights()
    rank = len(shape) - 2
    sizes, strides = kernel.shape[:rank], (strides,) * rank if isinstance(strides, int) else strides
    if isinstance(padding, str):
        missing = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(shape[1:], sizes, strides, strict=False)]
        pads = [(m // 2, m - m // 2) if padding == "same" else (0, 0) for m in missing]
    else:
        pads = [(p, p) for p in ((padding,) * rank if isinstance(padding, int) else padding)]
    padded = np.pad(x, [(0, 0), *pads, (0, 0)])
    assert layer.compute_output_shape(shape) == outputs.shape
    for place in np.ndindex(outputs.shape[1:-1]):
        window = padded[
            (slice(None), *(slice(o * s, o * s + k) for o, s, k in zip(place, strides, sizes, strict=True)))
        ]
        expected = np.tensordot(window, kernel, rank + 1) + bias
        np.testing.assert_allclose(outputs[(slice(None), *place)], expected, atol=1e-5)


def test_unknown_sizes_of_space():
    entry = keras.Input((None, None, 3))
    model = keras.Model(entry, Convolution(4, 3, strides=2)(entry))
    assert model.output_shape == (None, None, None, 4)
    assert model.predict(numbers(1, 6, 9, 3), verbose=0).shape == (1, 3, 5, 4)


def test_channels_are_last_whatever_the_global_image_format():
    keras.config.set_image_data_format("channels_first")
    try:
        assert Convolution(5, 3)(numbers(1, 4, 6, 2)).shape == (1, 4, 6, 5)
        assert TransposedConvolution(5, 2)(numbers(1, 4, 6, 2)).shape == (1, 8, 12, 5)
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize(("size", "scale"), [(2, 2), (4, 2), (3, 2)])
def test_he_initialisation_keeps_the_size_of_numbers(size, scale):
    """Each output of a kernel of K = s or 2 s adds up a whole number of places, for which w is drawn."""
    layer = TransposedConvolution(40, scale, kernel_size=size, kernel_initializer="he_normal")
    x = np.maximum(numbers(4, 8, 8, 50), 0)
    outputs = keras.ops.convert_to_numpy(layer(x))[:, 2:-2, 2:-2]
    wanted = 1.0 if size != 3 else (3 / 4) ** 2  # of 2 × 2 places only (3/2)² are there in the mean
    assert np.var(outputs) == pytest.approx(wanted, rel=0.2)


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: Convolution(0, 3), (1, 4, 4, 1), "filters 0: give 1 or more"),
        (lambda: Convolution(2, (3, 0)), (1, 4, 4, 1), r"kernel_size \(3, 0\): give 1 or more"),
        (lambda: Convolution(2, 3, padding="full"), (1, 4, 4, 1), "padding 'full': choose 'same', 'valid'"),
        (lambda: Convolution(2, 3, padding=-1), (1, 4, 4, 1), "padding -1: give 0 or more"),
        (
            lambda: Convolution(2, (3, 3)),
            (1, 4, 1),
            r"kernel_size \(3, 3\): does not fit an input of shape",
        ),
        (lambda: Convolution(2, 5, padding="valid"), (1, 4, 4, 1), r"kernel_size \(5, 5\): larger than the input"),
        (
            lambda: TransposedConvolution(2, 3, kernel_size=2),
            (1, 4, 4, 1),
            r"kernel_size \(2, 2\): smaller than the scale",
        ),
        (lambda: TransposedConvolution(2, 2), (1, None, 4, 1), "give a known size to every axis but the batch"),
    ],
)
def test_bad_arguments(make, shape, message):
    with pytest.raises(InputError, match=message):
        make()(keras.Input(batch_shape=shape))
