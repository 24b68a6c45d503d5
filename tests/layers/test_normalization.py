import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.layers import GroupNormalization, normalization
from tests import conformance

random = np.random.default_rng(8)
X = (3 + 2 * random.normal(size=(2, 3, 4, 6))).astype("float32")


def test_conformance(tmp_path):
    conformance.check_layer(lambda: GroupNormalization(3), X, tmp_path)


@pytest.mark.parametrize("groups", [1, 2, 6, -1])
def test_it_is_the_equation(groups):
    layer = GroupNormalization(groups, epsilon=1e-3)
    layer.build(X.shape)
    gamma, beta = random.normal(size=(2, 6)).astype("float32")
    layer.set_weights([gamma, beta])
    split = X.reshape(2, 3, 4, groups, -1) if groups > 0 else X[..., None]
    mean, variance = split.mean((1, 2, 4), keepdims=True), split.var((1, 2, 4), keepdims=True)
    expected = ((split - mean) / np.sqrt(variance + 1e-3)).reshape(X.shape)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(X)), gamma * expected + beta, atol=1e-5)
    bare = GroupNormalization(groups, epsilon=1e-3, affine=False)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(bare(X)), expected, atol=1e-5)
    assert not bare.weights


def test_statistics_are_in_float32():
    """A mean of 1,000 has in half precision no digits left for differences of 0.01."""
    x = np.float16(1000) + np.tile(np.float16([0, 0.5, 1, 1.5]), (1, 8, 8, 1))
    outputs = keras.ops.convert_to_numpy(GroupNormalization(1, dtype="mixed_float16")(x))
    np.testing.assert_allclose(outputs[0, 0, 0], (np.arange(4) - 1.5) / np.std(np.arange(4)), atol=2e-3)


def test_kinds():
    batch, group, instance = (normalization(kind, "norm", groups=2) for kind in ("batch", "group", "instance"))
    assert isinstance(batch, keras.layers.BatchNormalization)
    assert (batch.epsilon, batch.momentum, batch.name) == (1e-5, 0.9, "norm")
    assert (group.groups, instance.groups, group.name) == (2, -1, "norm")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(normalization(None)(X)), X)
    with pytest.raises(InputError, match="normalization 'layer': choose 'batch', 'group', 'instance' or None"):
        normalization("layer")


def test_bad_groups():
    with pytest.raises(InputError, match="groups 0: give 1 or more, or -1"):
        GroupNormalization(0)
    with pytest.raises(InputError, match="groups 4: does not divide the 6 channels"):
        GroupNormalization(4)(X)
