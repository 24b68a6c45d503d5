"""Distances between the surfaces of two masks, in two or three dimensions (or one)."""

import numpy as np


def surface(mask: np.ndarray) -> np.ndarray:
    """The pixels of `mask` with a neighbour outside it along an axis; beyond the array is outside.

    The surface of Taha and Hanbury 2015 and of MONAI (mask XOR its erosion by a cross); it lies inside the mask.

    Args:
        mask: booleans `(*space)`.

    Returns:
        Booleans of the same shape.
    """
    padded = np.pad(mask, 1)
    inside = mask.copy()
    for axis in range(mask.ndim):
        for start in (0, 2):
            at = [slice(1, -1)] * mask.ndim
            at[axis] = slice(start, start + mask.shape[axis])
            inside &= padded[tuple(at)]
    return mask & ~inside


def surface_distances(one: np.ndarray, other: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """From each surface pixel of `one` the distance to the nearest of `other`, and the reverse.

    Between centres of pixels, exactly, by a search tree of the surface pixels. SciPy's distance transform of the box
    around both masks gives the same and takes 2 (balls) to 8 times (noise) as long, in two and in three dimensions.

    Args:
        one: booleans `(*space)`, not all false.
        other: the same shape, not all false.
        spacing: from a pixel to the next along each axis.

    Returns:
        Two arrays, one entry a surface pixel of `one` and of `other`, in the unit of `spacing`.
    """
    from scipy.spatial import cKDTree

    points = [np.argwhere(surface(mask)) * np.asarray(spacing, "float64") for mask in (one, other)]
    first, second = cKDTree(points[0]), cKDTree(points[1])
    return second.query(points[0])[0], first.query(points[1])[0]
