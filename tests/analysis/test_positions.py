import re

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from kseq.analysis import position_code, position_similarity
from kseq.errors import InputError
from kseq.layers import LearnedPositionEncoding, SinusoidalPositionEncoding
from kseq.models import ViT

TOKENS, DIM = 12, 16


@pytest.fixture
def axis():
    return Figure().subplots()


@pytest.fixture
def vit():
    """Grid 2 × 3, class token."""
    return ViT((4, 6, 1), 5, patch_size=2, embed_dim=8, depth=1, num_heads=2)


def sines(positions, dim, max_wavelength=10_000.0) -> np.ndarray:
    """p_(t, 2k) = sin(ω_k t), p_(t, 2k+1) = cos(ω_k t), in float64."""
    angles = np.arange(positions)[:, None] * max_wavelength ** (-np.arange(0, dim, 2) / dim)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(positions, dim)


def test_the_sinusoidal_table_is_its_equation(axis):
    table = position_code(SinusoidalPositionEncoding(), (TOKENS, DIM), axis=axis)
    np.testing.assert_allclose(table, sines(TOKENS, DIM), atol=1e-6)
    np.testing.assert_array_equal(axis.images[0].get_array(), table)
    assert axis.images[0].get_clim() == (-1, 1)
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("position", "dimension")
    assert axis.get_ylim() == (TOKENS - 0.5, -0.5)  # position 0 is above
    axis.figure.canvas.draw()


@pytest.mark.parametrize("encoding", [SinusoidalPositionEncoding, LearnedPositionEncoding])
def test_the_prefix_is_left_out_and_a_grid_is_row_major(encoding):
    grid = position_code(encoding((3, 4), num_prefix_tokens=2), (2 + 12, DIM))
    assert grid.shape == (12, DIM)
    if encoding is SinusoidalPositionEncoding:
        expected = np.concatenate([np.repeat(sines(3, 8), 4, axis=0), np.tile(sines(4, 8), (3, 1))], axis=1)
        np.testing.assert_allclose(grid, expected, atol=1e-6)
        np.testing.assert_array_equal(position_code(encoding(), (3, 4, DIM)), grid)


def test_a_learned_table_is_that_of_the_model(vit, axis):
    layer = vit.get_layer("position_encoding")
    table = position_code(layer)
    np.testing.assert_array_equal(table, layer.get_weights()[0][1:])
    similarity = position_similarity(layer, axis=axis)
    np.testing.assert_allclose(similarity, table @ table.T)
    assert [image.get_array().shape for image in axis.images] == [(2, 3)] * 6
    np.testing.assert_array_equal(position_similarity(table, (2, 3)), similarity)


def test_sinusoidal_similarity_depends_on_the_distance_alone():
    similarity = position_similarity(position_code(SinusoidalPositionEncoding(), (TOKENS, DIM)))
    frequencies = 10_000.0 ** (-np.arange(0, DIM, 2) / DIM)
    distance = np.abs(np.subtract.outer(np.arange(TOKENS), np.arange(TOKENS)))
    np.testing.assert_allclose(similarity, np.cos(distance[..., None] * frequencies).sum(axis=-1), atol=1e-5)
    learned = position_similarity(position_code(LearnedPositionEncoding(), (TOKENS, DIM)))
    assert np.ptp(np.diagonal(learned, 1)) > 1e-4  # random vectors have no such law


def test_cosine_similarity():
    random = np.random.default_rng(0)
    table = random.normal(size=(5, 3))
    table[2] = 0
    similarity = position_similarity(table, cosine=True)
    for t, u in np.ndindex(5, 5):
        norms = np.linalg.norm(table[t]) * np.linalg.norm(table[u])
        assert similarity[t, u] == pytest.approx(table[t] @ table[u] / norms if norms else 0)


def test_a_plain_similarity_is_one_heat_map(axis):
    similarity = position_similarity(sines(TOKENS, DIM), axis=axis)
    (image,) = axis.images
    np.testing.assert_array_equal(image.get_array(), similarity)
    assert image.get_clim() == pytest.approx((-DIM / 2, DIM / 2))
    axis.figure.canvas.draw()


def test_a_grid_of_two_axes_is_a_map_in_the_place_of_each_patch(axis):
    table = np.random.default_rng(0).normal(size=(6, 4))
    similarity = position_similarity(table, (2, 3), cosine=True, axis=axis)
    assert len(axis.images) == 6
    places = []
    for patch, image in enumerate(axis.images):
        np.testing.assert_array_equal(image.get_array(), similarity[patch].reshape(2, 3))
        assert image.get_clim() == (-1, 1)
        left, _, _, top = image.get_extent()
        places.append((top, left))
    assert places == sorted(places)  # row by row, from the upper left
    assert len({top for top, _ in places}), len({left for _, left in places}) == (2, 3)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "1", "2"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["0", "1"]
    axis.figure.canvas.draw()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: position_code(keras.layers.Dense(2, name="dense")), "encoding dense: a Dense; give a Sinusoidal"),
        (lambda: position_code(None), "encoding None: a NoneType; give a Sinusoidal"),
        (lambda: position_code(SinusoidalPositionEncoding(name="p")), "shape None: layer p is in no model; give"),
        (lambda: position_code(SinusoidalPositionEncoding(), (5,)), "shape (5,): give known sizes, (tokens, dim)"),
        (lambda: position_code(SinusoidalPositionEncoding(), (None, 4)), "shape (None, 4): give known sizes"),
        (lambda: position_similarity(np.ones(3)), "code of shape (3,): give a table (positions, dim)"),
        (lambda: position_similarity(np.ones((5, 2)), (2, 3)), "grid_shape (2, 3): has 6 positions; give one of 5"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        call()
    assert "\n" not in str(caught.value)
