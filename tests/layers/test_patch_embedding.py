import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.layers import PatchEmbedding
from tests import conformance

random = np.random.default_rng(1)

CASES = {  # input shape, patch, padding, grid
    "1-D": ((2, 12, 3), 4, "valid", (3,)),
    "2-D": ((2, 8, 6, 3), (4, 2), "valid", (2, 3)),
    "3-D": ((2, 4, 8, 6, 2), (2, 4, 3), "valid", (2, 2, 2)),
    "2-D same": ((2, 7, 9, 3), 4, "same", (2, 3)),
    "3-D same": ((1, 3, 5, 6, 1), (2, 4, 4), "same", (2, 2, 2)),
    "smaller than a patch": ((1, 3, 2, 1), 4, "same", (1, 1)),
}


@pytest.mark.parametrize(("shape", "patch", "padding", "grid"), CASES.values(), ids=CASES)
def test_conformance(shape, patch, padding, grid, tmp_path):
    inputs = random.normal(size=shape).astype("float32")
    conformance.check_layer(lambda: PatchEmbedding(5, patch, padding=padding), inputs, tmp_path)


@pytest.mark.parametrize(("shape", "patch", "padding", "grid"), CASES.values(), ids=CASES)
def test_a_token_is_the_projection_of_its_voxels(shape, patch, padding, grid):
    layer = PatchEmbedding(5, patch, padding=padding)
    x = random.normal(size=shape).astype("float32")
    tokens = keras.ops.convert_to_numpy(layer(x))
    E, b = layer.get_weights()
    layer.set_weights([E, b + 0.5])
    tokens = keras.ops.convert_to_numpy(layer(x))
    assert tokens.shape == (shape[0], *grid, 5)
    sizes = (patch,) * len(grid) if isinstance(patch, int) else patch
    for index in np.ndindex(grid):
        filled = np.zeros((shape[0], *sizes, shape[-1]))
        voxels = x[(slice(None), *(slice(i * p, (i + 1) * p) for i, p in zip(index, sizes, strict=True)))]
        filled[tuple(slice(size) for size in voxels.shape)] = voxels
        expected = filled.reshape(shape[0], -1) @ E + b + 0.5
        np.testing.assert_allclose(tokens[(slice(None), *index)], expected, atol=1e-5)


def test_it_is_the_convolution_whose_stride_is_its_kernel():
    x = random.normal(size=(2, 8, 12, 3)).astype("float32")
    convolution = keras.layers.Conv2D(5, (4, 3), strides=(4, 3))
    expected = keras.ops.convert_to_numpy(convolution(x))
    layer = PatchEmbedding(5, (4, 3))
    layer.build(x.shape)
    kernel, bias = convolution.get_weights()
    layer.set_weights([kernel.reshape(-1, 5), bias])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({"embed_dim": 0}, (1, 8, 8, 3), "embed_dim 0: give 1 or more"),
        ({"patch_size": (4, 0)}, (1, 8, 8, 3), r"patch_size \(4, 0\): give 1 or more"),
        ({"padding": "full"}, (1, 8, 8, 3), "padding 'full': choose 'valid' or 'same'"),
        ({}, (1, 6, 8, 3), r"patch_size \(4, 4\): does not divide the input of \(6, 8\); give .* \(4, 8\) or \(8, 8\)"),
        ({}, (1, 3, 8, 3), r"patch_size \(4, 4\): larger than the input of \(3, 8\)"),
        ({"patch_size": (4, 4, 4)}, (1, 8, 8, 3), "does not fit an input of shape"),
        ({}, (None, None, 8, 3), "give a known size to every axis but the batch"),
    ],
)
def test_bad_arguments(arguments, shape, message):
    with pytest.raises(InputError, match=message):
        PatchEmbedding(**{"embed_dim": 5, "patch_size": 4} | arguments)(keras.Input(batch_shape=shape))
