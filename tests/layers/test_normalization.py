import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.layers import BatchNormalization, GroupNormalization, normalization
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


def test_conformance_of_batch_normalization(tmp_path):
    conformance.check_layer(BatchNormalization, X, tmp_path)


def mask_of_x():
    return np.random.default_rng(0).random(X.shape[:-1]) > 0.5


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    ("arguments", "call"),
    [({}, {}), ({"momentum": 0.5}, {}), ({"scale": False}, {}), ({"axis": 1}, {}), ({}, {"mask": mask_of_x()})],
    ids=["plain", "momentum", "no γ", "axis", "mask"],
)
def test_batch_normalization_is_keras_s(dtype, arguments, call):
    """Outputs while training and after, and running statistics, which PyTorch would not have of the biased variance."""
    ours, theirs = (kind(**arguments, dtype=dtype) for kind in (BatchNormalization, keras.layers.BatchNormalization))
    for layer in (ours, theirs):
        layer.build(X.shape)
    assert [weight.name for weight in ours.weights] == [weight.name for weight in theirs.weights]
    random = np.random.default_rng(0)
    weights = [random.uniform(0.5, 2, size=weight.shape) for weight in theirs.weights]
    for layer in (ours, theirs):
        layer.set_weights(weights)
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    for training in (True, True, False):
        one, two = (layer(X, training=training, **call) for layer in (ours, theirs))
        assert keras.backend.standardize_dtype(one.dtype) == keras.backend.standardize_dtype(two.dtype)
        one, two = (keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32")) for outputs in (one, two))
        np.testing.assert_allclose(one, two, rtol=tolerance, atol=tolerance)
        for weight, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_allclose(weight, other, rtol=1e-4, atol=1e-5)


def test_frozen_batch_normalization_keeps_its_statistics():
    layer = BatchNormalization()
    layer.build(X.shape)
    layer.trainable = False
    outputs = layer(X, training=True)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(outputs), X / np.sqrt(1 + 1e-3), rtol=1e-5)
    np.testing.assert_array_equal(layer.get_weights()[2:], [np.zeros(6), np.ones(6)])


def test_kinds():
    batch, group, instance = (normalization(kind, "norm", groups=2) for kind in ("batch", "group", "instance"))
    assert isinstance(batch, BatchNormalization)
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
