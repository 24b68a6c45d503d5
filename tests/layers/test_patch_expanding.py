import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.layers import PatchExpanding
from tests import conformance

random = np.random.default_rng(1)

CASES = {  # input shape, arguments, output shape
    "1-D": ((2, 3, 6), {}, (2, 6, 3)),
    "2-D": ((2, 3, 2, 4), {"scale": 4, "output_dim": 4}, (2, 12, 8, 4)),
    "3-D": ((1, 2, 3, 2, 4), {"scale": (1, 2, 3), "output_dim": 3}, (1, 2, 6, 6, 3)),
}


def expanded(layer, x):
    return keras.ops.convert_to_numpy(layer(x))


def test_conformance(tmp_path):
    shape, arguments, _ = CASES["3-D"]
    x = random.normal(size=shape).astype("float32")
    conformance.check_layer(lambda: PatchExpanding(**arguments), x, tmp_path)


@pytest.mark.parametrize(("shape", "arguments", "output_shape"), CASES.values(), ids=CASES)
def test_a_token_becomes_the_patch_in_its_place(shape, arguments, output_shape):
    layer = PatchExpanding(**arguments)
    layer.build(shape)
    W, gamma, beta = (random.normal(size=w.shape).astype("float32") for w in layer.get_weights())
    layer.set_weights([W, gamma, beta])
    x = random.normal(size=shape).astype("float32")
    outputs, dim = expanded(layer, x), output_shape[-1]
    assert outputs.shape == output_shape
    scale = [fine // coarse for fine, coarse in zip(output_shape[1:-1], shape[1:-1], strict=True)]
    for index in np.ndindex(output_shape[1:-1]):
        coarse = tuple(i // s for i, s in zip(index, scale, strict=True))
        place = np.ravel_multi_index([i % s for i, s in zip(index, scale, strict=True)], scale)
        token = x[(slice(None), *coarse)] @ W[:, place * dim : (place + 1) * dim]
        token = token - token.mean(axis=-1, keepdims=True)
        token = gamma * token / np.sqrt((token**2).mean(axis=-1, keepdims=True) + 1e-5) + beta
        np.testing.assert_allclose(outputs[(slice(None), *index)], token, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({"scale": 0}, (1, 4, 4), "scale 0: give 1 or more"),
        ({"scale": (2, 0)}, (1, 4, 4, 4), r"scale \(2, 0\): give 1 or more"),
        ({"output_dim": 0}, (1, 4, 4), "output_dim 0: give 1 or more"),
        ({"scale": (2, 2)}, (1, 4, 4), r"scale \(2, 2\): does not fit an input of shape \(1, 4, 4\)"),
        ({}, (1, 4, 5), "output_dim None: 5 channels have no half; give a number"),
        ({}, (None, None, 4), "give a known size to every axis but the batch"),
    ],
)
def test_bad_arguments(arguments, shape, message):
    with pytest.raises(InputError, match=message):
        PatchExpanding(**arguments)(keras.Input(batch_shape=shape))
