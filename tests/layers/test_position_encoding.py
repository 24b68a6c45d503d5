import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.layers import LearnedPositionEncoding, SinusoidalPositionEncoding
from tests import conformance

random = np.random.default_rng(4)


def code(shape, start_index=None, **arguments) -> np.ndarray:
    """The code of every position of an input of `shape`, in float32."""
    layer = SinusoidalPositionEncoding(**arguments)
    more = {} if start_index is None else {"start_index": start_index}
    return keras.ops.convert_to_numpy(layer(np.zeros((1, *shape), "float32"), **more))[0]


CASES = {
    "1-D": ((2, 6, 8), {}),
    "2-D": ((2, 3, 4, 8), {}),
    "3-D": ((1, 2, 3, 4, 12), {"layout": "concatenated", "endpoint": True, "reverse_axes": True}),
    "tokens of a grid": ((2, 13, 8), {"grid_shape": (3, 4), "num_prefix_tokens": 1}),
}


@pytest.mark.parametrize("kind", [SinusoidalPositionEncoding, LearnedPositionEncoding])
@pytest.mark.parametrize(("shape", "arguments"), CASES.values(), ids=CASES)
def test_conformance(kind, shape, arguments, tmp_path):
    own = {"grid_shape", "num_prefix_tokens"} if kind is LearnedPositionEncoding else arguments.keys()
    arguments = {name: value for name, value in arguments.items() if name in own}
    conformance.check_layer(lambda: kind(**arguments), random.normal(size=shape).astype("float32"), tmp_path)


def test_the_interleaved_code_is_the_equation():
    expected = np.zeros((9000, 16))
    t = np.arange(9000)
    for k in range(8):
        omega = 10_000 ** (-2 * k / 16)
        expected[:, 2 * k], expected[:, 2 * k + 1] = np.sin(omega * t), np.cos(omega * t)
    np.testing.assert_allclose(code((9000, 16)), expected, atol=2e-6)  # a float32 product would be wrong by 3e-4


def test_the_code_is_bounded_and_its_similarity_depends_on_the_distance_only():
    P = code((300, 64)).astype("float64")
    assert np.abs(P).max() <= 1
    K = P @ P.T
    for distance in (0, 1, 7, 100):
        diagonal = np.diagonal(K, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-4)
    np.testing.assert_allclose(np.diagonal(K), 32, atol=1e-4)
    assert np.diagonal(K, 1)[0] > np.diagonal(K, 2)[0] > np.diagonal(K, 3)[0]


def test_each_axis_of_a_grid_has_channels_of_its_own():
    volume = code((3, 4, 5, 12))
    for axis, size in enumerate((3, 4, 5)):
        line = np.moveaxis(volume[..., 4 * axis : 4 * axis + 4], axis, 0)  # (size, others, 4)
        np.testing.assert_allclose(line, np.broadcast_to(code((size, 4))[:, None, None], line.shape), atol=1e-6)


def test_published_layouts():
    y, x = np.mgrid[:3, :4]
    omega = 10_000 ** -(np.arange(2) / 1)  # big_vision: 8 channels, exponents 0 … 1
    expected = np.concatenate([f(v[..., None] * omega) for v in (x, y) for f in (np.sin, np.cos)], axis=-1)
    got = code((3, 4, 8), layout="concatenated", endpoint=True, reverse_axes=True)
    np.testing.assert_allclose(got, expected, atol=1e-6)

    omega = 10_000 ** -(np.arange(2) / 2)  # masked autoencoders
    expected = np.concatenate([f(v[..., None] * omega) for v in (x, y) for f in (np.sin, np.cos)], axis=-1)
    np.testing.assert_allclose(code((3, 4, 8), layout="concatenated", reverse_axes=True), expected, atol=1e-6)

    for positions, shift in (("end", 1), ("center", 0.5)):  # DETR and deformable DETR: y first, interleaved
        angles = [2 * np.pi * (v + shift) / size for v, size in ((y, 3), (x, 4))]
        pairs = [np.stack([np.sin(a[..., None] * omega), np.cos(a[..., None] * omega)], -1) for a in angles]
        expected = np.concatenate([pair.reshape(3, 4, 4) for pair in pairs], axis=-1)
        np.testing.assert_allclose(code((3, 4, 8), positions=positions), expected, atol=1e-6)


def test_tokens_of_a_grid_have_the_code_of_the_grid_and_prefix_tokens_none():
    tokens = code((13, 8), grid_shape=(3, 4), num_prefix_tokens=1)
    np.testing.assert_array_equal(tokens[0], 0)
    np.testing.assert_allclose(tokens[1:].reshape(3, 4, 8), code((3, 4, 8)), atol=1e-6)


def test_a_position_of_a_million_is_exact_too():
    t, omega = 1_000_003, 10_000 ** (-np.arange(8) / 8)
    expected = np.stack([np.sin(omega * t), np.cos(omega * t)], axis=-1).reshape(16)
    np.testing.assert_allclose(code((1, 16), start_index=t)[0], expected, atol=3e-6)


def test_a_sequence_continues_at_its_start_index():
    whole = code((40, 8))
    np.testing.assert_allclose(code((10, 8), start_index=30), whole[30:], atol=1e-6)
    layer = LearnedPositionEncoding((40,))
    x = random.normal(size=(2, 40, 8)).astype("float32")
    whole = keras.ops.convert_to_numpy(layer(x))
    part = keras.ops.convert_to_numpy(layer(x[:, 30:35], start_index=30))
    np.testing.assert_array_equal(part, whole[:, 30:35])


def test_the_learned_code_is_added():
    layer = LearnedPositionEncoding((3, 4), num_prefix_tokens=1)
    x = random.normal(size=(2, 13, 8)).astype("float32")
    outputs = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(outputs, x + layer.get_weights()[0], atol=1e-6)


@pytest.mark.parametrize("kind", [SinusoidalPositionEncoding, LearnedPositionEncoding])
@pytest.mark.parametrize("positions", ["index", "center"])
def test_any_length_up_to_the_longest(kind, positions):
    inputs = keras.Input((None, 8))
    more = {"positions": positions} if kind is SinusoidalPositionEncoding else {}
    model = keras.Model(inputs, kind((20,), **more)(inputs))
    for length in (1, 20):
        assert model.predict(np.ones((2, length, 8), "float32"), verbose=0).shape == (2, length, 8)


def test_tokens_behind_the_table():
    layer = LearnedPositionEncoding((6,))
    with pytest.raises(InputError, match="start_index 4: tokens behind the table; give 0 to 3"):
        layer(np.zeros((1, 3, 8), "float32"), start_index=4)


@pytest.mark.parametrize("kind", [SinusoidalPositionEncoding, LearnedPositionEncoding])
def test_a_mask_passes(kind):
    x = keras.layers.Masking()(np.ones((2, 3, 8), "float32"))
    assert kind()(x)._keras_mask is x._keras_mask


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: LearnedPositionEncoding((4,)), (1, 5, 8), "input of 5 tokens: longer than the table of 4 positions"),
        (
            lambda: LearnedPositionEncoding((2, 2)),
            (1, 5, 8),
            r"input of 5 tokens: grid_shape \(2, 2\) needs 0 \+ 2 · 2",
        ),
        (lambda: LearnedPositionEncoding((2, 2)), (1, 2, 3, 8), "does not fit grid_shape"),
        (lambda: LearnedPositionEncoding(), (1, None, 8), "grid_shape None: .* give the longest"),
        (lambda: LearnedPositionEncoding((0,)), (1, 5, 8), r"grid_shape \(0,\)"),
        (lambda: LearnedPositionEncoding(num_prefix_tokens=-1), (1, 5, 8), "num_prefix_tokens -1"),
        (lambda: SinusoidalPositionEncoding(), (1, 5, 7), "embed_dim 7: .*; give a multiple of 2"),
        (lambda: SinusoidalPositionEncoding(), (1, 5, 5, 6), "embed_dim 6: .* 2 axes; give a multiple of 4"),
        (lambda: SinusoidalPositionEncoding(layout="mixed"), (1, 5, 8), "layout 'mixed'"),
        (lambda: SinusoidalPositionEncoding(positions="middle"), (1, 5, 8), "positions 'middle'"),
        (lambda: SinusoidalPositionEncoding(max_wavelength=0), (1, 5, 8), "max_wavelength 0"),
    ],
)
def test_bad_arguments(make, shape, message):
    with pytest.raises(InputError, match=message):
        make()(keras.Input(batch_shape=shape))
