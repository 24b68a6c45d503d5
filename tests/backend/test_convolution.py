from functools import partial

import keras
import numpy as np
import pytest

from kseq.backend import convolution as forms
from tests.gradients import gradients

random = np.random.default_rng(3)


def arrays(*shapes):
    return [random.normal(size=shape).astype("float32") for shape in shapes]


def check_same(form, other, inputs):
    """Both give the same outputs, and gradients of a random sum of them."""
    expected = keras.ops.convert_to_numpy(other(*map(keras.ops.convert_to_tensor, inputs)))
    weights = random.normal(size=expected.shape).astype("float32")

    def loss(*tensors, form):
        return keras.ops.sum(keras.ops.multiply(form(*tensors), weights))

    outputs = keras.ops.convert_to_numpy(form(*map(keras.ops.convert_to_tensor, inputs)))
    np.testing.assert_allclose(outputs, expected, atol=2e-5, rtol=1e-4)
    found, wanted = (gradients(partial(loss, form=f), inputs) for f in (form, other))
    for one, two in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4, rtol=1e-4)


CONVOLUTIONS = {  # input, kernel size, strides, padding
    "3-D": ((2, 5, 4, 6, 3), (3, 3, 3), (1, 1, 1), "same"),
    "3-D strides": ((1, 5, 6, 7, 3), (3, 2, 3), (2, 1, 2), "same"),
    "3-D zeros": ((1, 4, 4, 4, 2), (3, 3, 3), (2, 2, 2), ((1, 1), (1, 1), (0, 2))),
}


@pytest.mark.parametrize(("shape", "size", "strides", "padding"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_flat_and_chosen_convolutions_are_the_portable_one(shape, size, strides, padding):
    arguments = {"strides": strides, "padding": padding}
    inputs = arrays(shape, (*size, shape[-1], 4), (4,))
    for form in (forms.flat_convolution, forms.convolution):
        check_same(partial(form, **arguments), partial(forms.portable_convolution, **arguments), inputs)


@pytest.mark.parametrize(
    ("shape", "size", "strides", "padding"),
    [
        ((2, 5, 4, 1), (3, 3), (1, 1), "same"),
        ((1, 6, 7, 3), (3, 2), (2, 1), "same"),
        ((1, 5, 6, 2), (3, 3), (2, 2), "valid"),
    ],
)
def test_the_chosen_convolution_of_images_is_the_portable_one(shape, size, strides, padding):
    arguments = {"strides": strides, "padding": padding}
    inputs = arrays(shape, (*size, shape[-1], 4), (4,))
    check_same(partial(forms.convolution, **arguments), partial(forms.portable_convolution, **arguments), inputs)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX exports batches of a size that has a name")
def test_a_batch_of_any_size_is_exported():
    import jax

    (batch,) = jax.export.symbolic_shape("batch")
    kernel = np.ones((3, 3, 1, 32), "float32")
    form = jax.jit(partial(forms.convolution, kernel=kernel, strides=(1, 1)))
    exported = jax.export.export(form)(jax.ShapeDtypeStruct((batch, 32, 32, 1), "float32"))
    assert exported.call(np.ones((3, 32, 32, 1), "float32")).shape == (3, 32, 32, 32)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="a form for JAX")
@pytest.mark.parametrize(
    ("shape", "size", "strides", "padding"),
    [((3, 32, 33, 2), (3, 3), (1, 1), "same"), ((2, 36, 32, 1), (3, 2), (2, 1), ((1, 0), (0, 2)))],
)
def test_gradients_by_image_are_the_portable_ones(shape, size, strides, padding, monkeypatch):
    arguments = {"strides": strides, "padding": padding}
    inputs = [array / 8 for array in arrays(shape, (*size, shape[-1], 32), (32,))]  # gradients are sums of 1,000 terms
    portable = partial(forms.portable_convolution, **arguments)
    check_same(partial(forms.by_image, **arguments), portable, inputs)
    monkeypatch.setattr(forms, "by_image", lambda *_, **__: "by image")
    assert forms.convolution(*inputs, **arguments) == "by image"
    for fewer in (inputs[0][:, :8], inputs[0][:1]):  # a map of few places, one image
        assert forms.convolution(fewer, *inputs[1:], **arguments).shape[0] == len(fewer)


@pytest.mark.parametrize(("shape", "size"), [((2, 3, 4, 5, 6), (1, 1, 1)), ((2, 4, 6, 3), (2, 3)), ((2, 6, 3), (3,))])
def test_a_kernel_that_is_its_stride_is_a_product_of_matrices(shape, size):
    arguments = {"strides": size, "padding": "same"}
    inputs = arrays(shape, (*size, shape[-1], 4), (4,))
    check_same(partial(forms.convolution, **arguments), partial(forms.portable_convolution, **arguments), inputs)


TRANSPOSED = {  # input, kernel size, scale
    "side by side": ((2, 3, 4, 3), (2, 2), (2, 2)),
    "overlapping": ((1, 3, 4, 3), (3, 5), (2, 2)),
    "wider than tall": ((1, 3, 4, 3), (4, 3), (2, 3)),
    "other scales": ((1, 3, 4, 3), (5, 4), (3, 1)),
    "3-D": ((1, 2, 3, 2, 2), (3, 3, 3), (2, 2, 2)),
}


@pytest.mark.parametrize(("shape", "size", "scale"), TRANSPOSED.values(), ids=TRANSPOSED)
def test_shuffled_chosen_and_portable_transposed_convolutions_agree(shape, size, scale):
    inputs = arrays(shape, (*size, shape[-1], 4), (4,))
    for form in (forms.pixel_shuffled, forms.transposed_convolution):
        check_same(partial(form, scale=scale), partial(forms.portable_transposed_convolution, scale=scale), inputs)


def test_transposed_convolution_is_the_sum():
    x, w, b = arrays((2, 4, 3), (5, 3, 2), (2,))
    expected = np.zeros((2, 12, 2))
    for place in range(12):
        for i in range(4):
            if 0 <= (k := place + 1 - 3 * i) < 5:  # p = ⌊(5 − 3 + 1) / 2⌋
                expected[:, place] += x[:, i] @ w[k]
    for form in (forms.transposed_convolution, forms.portable_transposed_convolution, forms.pixel_shuffled):
        got = form(*map(keras.ops.convert_to_tensor, (x, w, b)), scale=(3,))
        np.testing.assert_allclose(keras.ops.convert_to_numpy(got), expected + b, atol=1e-5)
