import itertools

import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.layers import GlobalAttention, GlobalPositions, GlobalTokens, SwinBlock, WindowAttention
from tests import conformance
from tests.layers.attention_reference import softmax

random = np.random.default_rng(3)


def maps(*shape):
    return random.normal(size=shape).astype("float32")


def randomised(layer, *inputs):
    """The layer, built on these inputs, with weights that are not small."""
    layer.build(*(x.shape for x in inputs))
    layer.set_weights([0.5 * random.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def expected(layer, window, shift, heads, x, tokens=None):
    """The equation, token by token: each looks at those of its window that are not at the other end of the map."""
    W, b, *_ = (w.astype("float64") for w in layer.qkv.get_weights())
    Wo, c = (w.astype("float64") for w in layer.output_projection.get_weights())
    T = keras.ops.convert_to_numpy(layer.table).reshape(*(2 * w - 1 for w in window), heads)
    batch, *space, dim = x.shape
    filled = [-(-size // w) * w for size, w in zip(space, window, strict=True)]
    d, g = dim // heads, 0 if tokens is None else tokens.shape[2]
    places = list(itertools.product(*map(range, filled)))
    windows = list(itertools.product(*(range(n // w) for n, w in zip(filled, window, strict=True))))

    def home(place):
        """The window of a place, and the axes along which it came there from the other end."""
        rolled = [(p - s) % n for p, s, n in zip(place, shift, filled, strict=True)]
        return tuple(r // w for r, w in zip(rolled, window, strict=True)), tuple(np.less(place, shift))

    y, z = np.zeros(x.shape), None if tokens is None else np.zeros(tokens.shape)
    for n, (k, of_window) in itertools.product(range(batch), enumerate(windows)):
        inside = [place for place in places if home(place)[0] == of_window]
        rows = [tokens[n, k]] if g else []
        whole = np.zeros((*filled, dim))
        whole[tuple(slice(size) for size in space)] = x[n]
        rows = np.concatenate([*rows, [whole[place] for place in inside]]) @ W + b
        q, key, v = (part.reshape(len(rows), heads, d) for part in np.split(rows, 3, axis=-1))
        for i in range(len(rows)):
            head_outputs = []
            for h in range(heads):
                logits = key[:, h] @ q[i, h] / np.sqrt(d)
                for j in range(g, len(rows)) if i >= g else ():
                    p, other = inside[i - g], inside[j - g]
                    if home(p)[1] != home(other)[1]:
                        logits[j] = -np.inf
                    else:
                        logits[j] += T[tuple(np.subtract(p, other) + np.array(window) - 1)][h]
                head_outputs.append(softmax(logits) @ v[:, h])
            answer = np.concatenate(head_outputs) @ Wo + c
            if i < g:
                z[n, k, i] = answer
            elif all(np.less(inside[i - g], space)):
                y[n][inside[i - g]] = answer
    return y if z is None else (y, z)


CASES = {
    "1-D shifted padded": ((9,), (4,), (2,), 0),
    "2-D": ((6, 4), (3, 2), (0, 0), 0),
    "2-D shifted padded": ((5, 7), (3, 4), (1, 2), 0),
    "2-D shifted along one axis, tokens": ((4, 5), (2, 3), (1, 0), 2),
    "2-D shifted padded, tokens": ((5, 7), (3, 4), (1, 2), 1),
    "3-D shifted padded, tokens": ((3, 4, 5), (2, 2, 3), (1, 1, 1), 1),
}


@pytest.mark.parametrize(("space", "window", "shift", "g"), CASES.values(), ids=CASES)
def test_it_is_the_equation(space, window, shift, g):
    x = maps(2, *space, 6)
    windows = int(np.prod([-(-size // w) for size, w in zip(space, window, strict=True)]))
    inputs = (x, maps(2, windows, g, 6)) if g else (x,)
    layer = randomised(WindowAttention(window, 2, shift_size=shift, global_tokens=g), *inputs)
    got, wanted = layer(*inputs), expected(layer, window, shift, 2, *inputs)
    for one, other in zip(*((got, wanted) if g else ([got], [wanted])), strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(one), other, atol=2e-5)


def reach(function, shape):
    """Boolean (places, places): whether the second place changes the first."""
    x = maps(1, *shape)
    places = list(np.ndindex(*shape[:-1]))
    batch = np.repeat(x, len(places) + 1, axis=0)
    for row, place in enumerate(places):
        batch[(row + 1, *place, 0)] += 3  # of all channels alike, a normalisation would see nothing
    y = keras.ops.convert_to_numpy(function(batch)).reshape(len(places) + 1, len(places), -1)
    return (np.abs(y[1:] - y[0]).max(axis=-1) > 1e-6).T


def test_information_stays_in_windows_and_crosses_to_neighbours_with_a_shift():
    rows = np.arange(8)
    for shift, of_axis in ((0, rows // 4), (2, (rows + 2) // 4)):  # shifted: 0 1 | 2 3 4 5 | 6 7
        layer = randomised(WindowAttention(4, 1, shift_size=shift), maps(1, 8, 8, 2))
        window = [(of_axis[i], of_axis[j]) for i, j in np.ndindex(8, 8)]
        same = np.array([[a == b for b in window] for a in window])
        np.testing.assert_array_equal(reach(layer, (8, 8, 2)), same)


def test_with_global_tokens_two_blocks_see_the_whole_map():
    x = maps(1, 6, 6, 4)
    tokens = GlobalTokens(1, 2)
    first, second = (SwinBlock(2, 2, global_tokens=1) for _ in range(2))
    attention, positions = GlobalAttention(2), GlobalPositions()
    randomised(tokens, x)
    for block in (first, second):
        randomised(block, x, tokens(x))
    for layer in (attention, positions):
        randomised(layer, tokens(x))

    def with_tokens(x):
        x, g = first(x, tokens(x))
        return second(x, attention(positions(g)))[0]

    def without_exchange(x):
        return second(*first(x, tokens(x)))[0]

    assert reach(with_tokens, (6, 6, 4)).all()
    assert reach(without_exchange, (6, 6, 4)).sum() == 9 * 4 * 4


def test_the_bias_depends_on_the_offset_alone():
    layer = randomised(WindowAttention((3, 4), 2), maps(1, 3, 4, 4))
    bias = keras.ops.convert_to_numpy(layer._bias()).reshape(2, 3, 4, 3, 4)
    for a, b, c, d in np.ndindex(2, 3, 2, 3):
        np.testing.assert_array_equal(bias[:, a, b, c, d], bias[:, a + 1, b + 1, c + 1, d + 1])
    offsets = bias[0].transpose(0, 2, 1, 3)
    assert len(np.unique(offsets)) == 5 * 7  # each offset has its own


def test_legacy_differs_only_where_a_shifted_map_is_filled_up():
    for size, shift, same in ((8, 2, True), (7, 0, True), (7, 2, False)):
        x = maps(1, size, size, 4)
        layer = randomised(WindowAttention(4, 2, shift_size=shift), x)
        legacy = WindowAttention(4, 2, shift_size=shift, legacy=True)
        legacy.build(x.shape)
        legacy.set_weights(layer.get_weights())
        assert np.allclose(*(keras.ops.convert_to_numpy(one(x)) for one in (layer, legacy)), atol=1e-6) == same


def test_a_block_fits_its_window_to_the_map():
    block = SwinBlock(1, 4, shift=True)
    block.build((None, 9, 4, 3, 2))
    assert (block.attention.window, block.attention.shift) == ((4, 4, 3), (2, 0, 0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: WindowAttention((2, 3), 2, shift_size=(1, 1), qkv_bias=False, attention_dropout=0.1),
        lambda: SwinBlock(2, 2, shift=True, drop_path=0.1, dropout=0.1, mlp_ratio=1.5),
    ],
    ids=["attention", "block"],
)
def test_conformance(make, tmp_path):
    conformance.check_layer(make, maps(2, 3, 5, 4), tmp_path)


@pytest.mark.parametrize(
    ("make", "shape"),
    [(lambda: GlobalPositions(9), (2, 2, 3, 4)), (lambda: GlobalAttention(2, dropout=0.1), (2, 2, 3, 4))],
    ids=["positions", "attention"],
)
def test_conformance_of_global_tokens(make, shape, tmp_path):
    conformance.check_layer(make, maps(*shape), tmp_path)


def test_global_positions_are_the_middle_of_the_table():
    tokens = maps(2, 2, 2, 3)
    layer = randomised(GlobalPositions(9), tokens)
    (table,) = layer.get_weights()
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(layer(tokens)), tokens + table[2:6].reshape(2, 2, 3), atol=1e-6
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WindowAttention(0, 2), "window_size 0: give 1 or more"),
        (lambda: WindowAttention(2, 0), "num_heads 0: give 1 or more"),
        (lambda: WindowAttention(2, 2, global_tokens=-1), "global_tokens -1"),
        (lambda: WindowAttention(2, 2, attention_dropout=1.0), "attention_dropout 1.0"),
        (lambda: WindowAttention(2, 3).build((None, 4, 4, 4)), "num_heads 3: does not divide the 4 channels"),
        (
            lambda: WindowAttention((2, 2, 2), 2).build((None, 4, 4, 4)),
            r"window_size \(2, 2, 2\): does not fit",
        ),
        (lambda: WindowAttention(2, 2).build((None, None, 4, 4)), r"give a known size to every axis but the batch"),
        (lambda: WindowAttention(2, 2, shift_size=2).build((None, 4, 4, 4)), "shift_size 2: give 0 or more, and less"),
        (
            lambda: WindowAttention(2, 2, global_tokens=1).build((None, 4, 4, 4), (None, 3, 1, 4)),
            r"tokens of shape \(None, 3, 1, 4\).*need \(batch, 4, 1, 4\)",
        ),
        (lambda: WindowAttention(2, 2, global_tokens=1).build((None, 4, 4, 4)), "tokens of shape None"),
        (lambda: SwinBlock(2, 2, mlp_ratio=0), "mlp_ratio 0"),
        (lambda: SwinBlock(2, 2, global_tokens=-1), "global_tokens -1"),
        (lambda: GlobalTokens(0, 2), "num_tokens 0"),
        (lambda: GlobalPositions(0), "rows 0"),
        (lambda: GlobalPositions(3).build((None, 2, 2, 4)), "rows 3: 2 windows of 2 global tokens need 4"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(InputError, match=message):
        make()
