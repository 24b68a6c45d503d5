"""Resampled positions against torch.nn.functional.interpolate, as timm calls it, and scipy.ndimage.zoom."""

import numpy as np
import pytest
from scipy import ndimage

from kseq.errors import InputError
from kseq.weights import resample_positions

GRIDS = [
    ((7, 7), (7, 7)),
    ((4, 4), (6, 6)),
    ((14, 14), (24, 24)),
    ((24, 24), (14, 14)),
    ((16, 16), (3, 5)),
    ((5, 4), (4, 9)),
    ((3, 3), (1, 2)),
    ((1, 1), (4, 3)),
]


def table_of(grid, prefix=0, dim=3):
    return np.random.default_rng(0).normal(size=(prefix + np.prod(grid), dim)).astype("float32")


@pytest.mark.parametrize(("from_grid", "to_grid"), GRIDS)
def test_bicubic_is_that_of_timm(from_grid, to_grid):
    torch = pytest.importorskip("torch")
    table = table_of(from_grid)
    maps = torch.from_numpy(table.T.reshape(1, 3, *from_grid))
    expected = torch.nn.functional.interpolate(maps, size=to_grid, mode="bicubic", antialias=True)
    got = resample_positions(table, from_grid, to_grid)
    assert got.dtype == "float32"
    np.testing.assert_allclose(got, expected.numpy().reshape(3, -1).T, atol=1e-5)


@pytest.mark.parametrize(("from_grid", "to_grid"), [*GRIDS, ((3, 2, 4), (5, 4, 2))])
def test_bilinear_is_that_of_big_vision(from_grid, to_grid):
    table = table_of(from_grid)
    zoom = [new / old for old, new in zip(from_grid, to_grid, strict=True)]
    expected = ndimage.zoom(table.reshape(*from_grid, 3), (*zoom, 1), order=1)
    np.testing.assert_allclose(
        resample_positions(table, from_grid, to_grid, interpolation="bilinear"), expected.reshape(-1, 3), atol=1e-5
    )


def test_bilinear_keeps_the_last_corner_that_scipy_loses():
    table = table_of((28,))
    assert not ndimage.zoom(table, (0.5, 1), order=1)[-1].any()
    np.testing.assert_allclose(
        resample_positions(table, (28,), (14,), interpolation="bilinear")[[0, -1]], table[[0, -1]], atol=1e-6
    )


@pytest.mark.parametrize("sizes", [(14, 24), (24, 14)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_each_axis_of_a_volume_by_itself(sizes, interpolation):
    """A table that changes along one axis only is the one of that axis."""
    old, new = sizes
    line = table_of((old,))
    expected = resample_positions(line, (old,), (new,), interpolation=interpolation)
    for axis in range(3):
        shape, grid = [2, 2, 2], [3, 1, 2]
        shape[axis], grid[axis] = old, new
        along = [1, 1, 1, 3]
        along[axis] = old
        table = np.broadcast_to(line.reshape(along), (*shape, 3)).reshape(-1, 3)
        got = resample_positions(table, shape, grid, interpolation=interpolation).reshape(*grid, 3)
        along[axis] = new
        np.testing.assert_allclose(got, np.broadcast_to(expected.reshape(along), got.shape), atol=1e-5)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_prefix_and_the_same_grid_stay(interpolation):
    table = table_of((4, 4), prefix=2)
    got = resample_positions(table, (4, 4), (5, 5), 2, interpolation)
    np.testing.assert_array_equal(got[:2], table[:2])
    np.testing.assert_array_equal(got[2:], resample_positions(table[2:], (4, 4), (5, 5), 0, interpolation))
    np.testing.assert_array_equal(resample_positions(table, (4, 4), (4, 4), 2, interpolation), table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, 4), (5, 5), 0), r"table of shape \(17, 3\): does not hold from_grid \(4, 4\).*give \(16, embed_dim\)"),
        (((4, 4), (5,), 1), r"to_grid \(5,\): give 1 or more positions along each of 2 axes"),
        (((4, 4), (5, 0), 1), r"to_grid \(5, 0\): give 1 or more"),
        (((), (), 1), r"from_grid \(\): give 1 or more"),
        (((4, 4), (5, 5), 1, "nearest"), "interpolation 'nearest': choose 'bicubic' or 'bilinear'"),
    ],
)
def test_what_cannot_be_resampled(arguments, message):
    with pytest.raises(InputError, match=message):
        resample_positions(table_of((4, 4), prefix=1), *arguments)
