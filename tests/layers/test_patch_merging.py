import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.layers import PatchMerging
from tests import conformance

random = np.random.default_rng(4)


@pytest.mark.parametrize("space", [(6,), (4, 6), (3, 5), (2, 3, 4)], ids=str)
def test_the_first_offset_changes_fastest(space):
    x = random.normal(size=(2, *space, 3)).astype("float32")
    layer = PatchMerging()
    layer.build(x.shape)
    layer.set_weights([random.normal(size=w.shape) for w in layer.get_weights()])
    gamma, beta, W = layer.get_weights()
    whole = np.pad(x, [(0, 0), *((0, size % 2) for size in space), (0, 0)])
    offsets = [offset[::-1] for offset in np.ndindex(*(2,) * len(space))]
    patches = np.concatenate([whole[:, *(slice(first, None, 2) for first in offset)] for offset in offsets], axis=-1)
    centred = patches - patches.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    got = keras.ops.convert_to_numpy(layer(x))
    assert got.shape == (2, *(-(-size // 2) for size in space), 6)
    np.testing.assert_allclose(got, (gamma * normal + beta) @ W, atol=1e-4)


def test_conformance(tmp_path):
    conformance.check_layer(PatchMerging, random.normal(size=(2, 3, 4, 2)).astype("float32"), tmp_path)


@pytest.mark.parametrize("shape", [(None, 4), (None, None, 4, 2)], ids=str)
def test_maps_that_cannot_be_merged(shape):
    with pytest.raises(InputError, match=r"give \(batch, \*space, dim\)"):
        PatchMerging().build(shape)
