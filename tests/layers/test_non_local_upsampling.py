import itertools

import keras
import numpy as np
import pytest
from scipy import special

from kseq.errors import InputError
from kseq.layers import NonLocalUpsampling
from kseq.layers.non_local_upsampling import upsampling_index

random = np.random.default_rng(3)


def maps(batch, space, dim=6, skip_dim=4):
    x = random.normal(size=(batch, *space, dim)).astype("float32")
    return x, random.normal(size=(batch, *(2 * size for size in space), skip_dim)).astype("float32")


def randomised(layer, x, skip):
    layer.build(x.shape, skip.shape)
    layer.set_weights([random.normal(size=w.shape).astype("float32") * 0.7 for w in layer.get_weights()])
    return layer


def upsampled(layer, x, skip, **arguments):
    return keras.ops.convert_to_numpy(layer(x, skip, **arguments))


def test_shapes_and_configuration():
    """All else that conformance checks is checked with `SwinUnet`, which has this layer."""
    x, skip = maps(1, (3, 2))
    layer = NonLocalUpsampling(
        2, (3, 4), mlp_ratio=2.0, qkv_bias=False, dropout=0.1, attention_dropout=0.2, legacy=True
    )
    assert layer.compute_output_shape(x.shape, skip.shape) == upsampled(layer, x, skip, training=True).shape
    assert NonLocalUpsampling.from_config(layer.get_config()).get_config() == layer.get_config()


def equation(layer, x, skip):
    """What the docstring says, one query and head at a time."""

    def norm(x, layer):
        gamma, beta = layer.get_weights()
        x = x - x.mean(axis=-1, keepdims=True)
        return gamma * x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5) + beta

    space, window, heads = x.shape[1:-1], layer.window, layer.num_heads
    Wq, bq = layer.query_projection.get_weights()
    Wkv, bkv = layer.key_value_projection.get_weights()
    Wo, bo = layer.output_projection.get_weights()
    W1, b1, W2, b2 = layer.feed_forward.get_weights()
    table = keras.ops.convert_to_numpy(layer.table).reshape(*(4 * w - 2 for w in window), heads)
    keys_and_values = norm(x.astype("float64"), layer.key_value_norm)
    y = np.zeros(skip.shape)
    for batch, place in itertools.product(range(len(x)), np.ndindex(skip.shape[1:-1])):
        first = [p // (2 * w) * w for p, w in zip(place, window, strict=True)]
        keys = [tuple(np.add(first, key)) for key in np.ndindex(*window)]
        outside = np.zeros(x.shape[-1])
        seen = np.stack([keys_and_values[batch][key] if np.all(np.less(key, space)) else outside for key in keys])
        k, v = np.split(seen @ Wkv + bkv, 2, axis=-1)
        q = skip[batch][place] @ Wq + bq
        offsets = np.array(place) - 2 * np.array(keys) + 2 * (np.array(window) - 1)
        bias = table[tuple(offsets.T)]  # (keys, heads)
        d = len(q) // heads
        for head in range(heads):
            part = slice(head * d, (head + 1) * d)
            weights = special.softmax(k[:, part] @ q[part] / np.sqrt(d) + bias[:, head])
            y[batch][place] += (weights @ v[:, part]) @ Wo[part]
    y = y + bo + keras.ops.convert_to_numpy(layer.expanding(x))
    hidden = norm(y, layer.feed_forward_norm) @ W1 + b1
    return y + hidden * special.ndtr(hidden) @ W2 + b2


@pytest.mark.parametrize(
    ("space", "window"), [((5,), 2), ((3, 4), (4, 2)), ((2, 1, 3), 2)], ids=["1-D filled up", "2-D", "3-D"]
)
def test_it_is_the_equation(space, window):
    x, skip = maps(2, space)
    layer = randomised(NonLocalUpsampling(2, window), x, skip)
    np.testing.assert_allclose(upsampled(layer, x, skip), equation(layer, x, skip), atol=2e-5)


def test_a_row_of_the_bias_is_an_offset_of_the_fine_map():
    """Queries i and keys j, which cover 2 j and 2 j + 1, share a row if i − 2 j is the same, and no row is unused."""
    window = (3, 2)
    index, rows = upsampling_index(window)
    offsets = {}
    for q, query in enumerate(np.ndindex(6, 4)):
        for k, key in enumerate(np.ndindex(*window)):
            offsets.setdefault(tuple(np.subtract(query, np.multiply(2, key))), set()).add(index[q, k])
    assert sorted(row for (row,) in offsets.values()) == [*range(rows)]


def test_the_reference_confuses_offsets():
    """With its index a query has, for keys at different offsets, one row, and for the same offset several."""
    index, rows = upsampling_index((4, 4), legacy=True)
    halves = np.stack(np.meshgrid(np.arange(8) // 2, np.arange(8) // 2, indexing="ij")).reshape(2, -1)
    taken = halves[:, ::4]  # stand for the 16 keys
    expected = (halves[0][:, None] - taken[0] + 3) * 7 + halves[1][:, None] - taken[1] + 3
    np.testing.assert_array_equal(index, expected)
    assert rows == 49
    assert len(set(index[0])) < 16


def test_whole_windows_can_be_shifted():
    x, skip = maps(1, (6, 4))
    layer = randomised(NonLocalUpsampling(3, 2), x, skip)
    shifted = upsampled(layer, np.roll(x, (2, -2), (1, 2)), np.roll(skip, (4, -4), (1, 2)))
    np.testing.assert_allclose(shifted, np.roll(upsampled(layer, x, skip), (4, -4), (1, 2)), atol=1e-5)
    other = upsampled(layer, np.roll(x, 1, 1), np.roll(skip, 2, 1))
    assert np.abs(other - np.roll(upsampled(layer, x, skip), 2, 1)).max() > 0.01


def test_a_window_is_no_longer_than_the_coarse_map():
    """That of the reference is no longer than the fine one, and filled up."""
    x, skip = maps(1, (2, 4))
    current, legacy = (randomised(NonLocalUpsampling(2, 3, legacy=legacy), x, skip) for legacy in (False, True))
    assert (current.window, legacy.window) == ((2, 3), (3, 3))
    assert (current.table.shape[0], legacy.table.shape[0]) == (6 * 10, 5 * 5)


def test_stochastic_depth_leaves_out_both_branches():
    x, skip = maps(64, (2,))
    layer = randomised(NonLocalUpsampling(1, 2, drop_path=0.5), x, skip)
    residual = keras.ops.convert_to_numpy(layer.expanding(x))
    differs = np.abs(upsampled(layer, x, skip, training=True) - residual).max(axis=(1, 2)) > 1e-6
    assert 0.4 < differs.mean() < 1
    assert np.abs(upsampled(layer, x, skip) - residual).max(axis=(1, 2)).min() > 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 0}, "num_heads 0: give 1 or more"),
        ({"num_heads": 4}, "num_heads 4: does not divide the 6 channels of x"),
        ({"window_size": 0}, "window_size 0"),
        ({"window_size": (2, 2, 2)}, r"window_size \(2, 2, 2\): does not fit"),
        ({"mlp_ratio": 0}, "mlp_ratio 0: give a positive number"),
        ({"dropout": 1.0}, "dropout 1.0: give a share"),
        ({"attention_dropout": -0.1}, "attention_dropout -0.1"),
        ({"drop_path": 1}, "drop_path 1"),
    ],
)
def test_bad_arguments(arguments, message):
    x, skip = maps(1, (2, 2))
    with pytest.raises(InputError, match=message):
        NonLocalUpsampling(**{"num_heads": 2} | arguments)(x, skip)


def test_a_skip_that_is_not_twice_as_fine():
    x, skip = maps(1, (2, 2))
    with pytest.raises(InputError, match=r"skip of shape \(1, 4, 3, 4\): .* give one of \(4, 4\) places"):
        NonLocalUpsampling(2)(x, skip[:, :, :3])
