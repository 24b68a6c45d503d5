import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.layers import MaxPooling
from tests import conformance

X = np.random.default_rng(7).normal(size=(2, 5, 6, 3)).astype("float32")


def test_conformance(tmp_path):
    conformance.check_layer(lambda: MaxPooling((2, 3)), X, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "places"), [({}, (2, 3)), ({"padding": "same"}, (3, 3)), ({"size": 3, "strides": 2}, (2, 2))]
)
def test_it_is_the_maximum_whatever_the_global_image_format(arguments, places):
    layer = MaxPooling(**arguments)
    keras.config.set_image_data_format("channels_first")
    try:
        outputs = keras.ops.convert_to_numpy(layer(X))
    finally:
        keras.config.set_image_data_format("channels_last")
    size = arguments.get("size", 2)
    assert outputs.shape == layer.compute_output_shape(X.shape) == (2, *places, 3)
    for i, j in np.ndindex(places):
        window = X[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size]
        np.testing.assert_array_equal(outputs[:, i, j], window.max((1, 2)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size 0: give 1 or more"),
        ({"padding": "full"}, "padding 'full': choose 'valid' or 'same'"),
        ({"size": (2, 2, 2)}, r"size \(2, 2, 2\): does not fit an input of shape"),
        ({"size": 7}, r"size \(7, 7\): larger than the input of \(5, 6\)"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        MaxPooling(**arguments)(keras.Input(X.shape[1:]))
