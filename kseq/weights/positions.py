"""A table of learned positions for another grid: images of another size, or patches of another."""

from collections.abc import Sequence
from math import prod
from typing import Literal

import numpy as np

from kseq.errors import InputError

Interpolation = Literal["bicubic", "bilinear"]
INTERPOLATIONS = ("bicubic", "bilinear")
CUBIC = -0.5  # a of the cubic kernel of Keys (1981)


def resample_positions(
    table: np.ndarray,
    from_grid: Sequence[int],
    to_grid: Sequence[int],
    num_prefix_tokens: int = 0,
    interpolation: Interpolation = "bicubic",
) -> np.ndarray:
    """Resample the vectors of a grid of positions; those of the prefix tokens in front stay as they are.

    Each axis is resampled by itself, p'_i = Σ_j w_ij p_j with Σ_j w_ij = 1, so a grid may have any number of them.

    - "bicubic" is `resample_abs_pos_embed` of timm, `torch.nn.functional.interpolate` with `antialias=True` and
      `align_corners=False`: grids cover the same area, and the kernel of a smaller grid is widened to see it all.
    - "bilinear" is `scipy.ndimage.zoom` with `order=1`, as in google-research/vision_transformer and big_vision: the
      corners of the grids coincide, and a smaller grid is a sample of the larger one. (For some sizes, 28 → 14 among
      them, SciPy finds the last corner outside by a rounding error and sets it to 0; here it is the corner.)

    Args:
        table: `(num_prefix_tokens + positions, embed_dim)`, the positions in row-major order.
        from_grid: positions along each axis of `table`.
        to_grid: positions along each axis wanted.
        num_prefix_tokens: rows in front, such as that of a class token.
        interpolation: "bicubic" or "bilinear".

    Returns:
        The table of the new grid, `(num_prefix_tokens + new positions, embed_dim)`.

    Raises:
        InputError: if the table does not hold `from_grid`, the grids differ in rank, or the interpolation is unknown.
    """
    check_interpolation(interpolation)
    from_grid, to_grid = tuple(from_grid), tuple(to_grid)
    for argument, grid in (("from_grid", from_grid), ("to_grid", to_grid)):
        if not grid or any(size < 1 for size in grid) or len(grid) != len(from_grid):
            raise InputError(f"{argument} {grid!r}: give 1 or more positions along each of {len(from_grid) or 2} axes")
    if np.ndim(table) != 2 or len(table) != num_prefix_tokens + prod(from_grid):
        raise InputError(
            f"table of shape {np.shape(table)}: does not hold from_grid {from_grid} behind {num_prefix_tokens} prefix "
            f"tokens; give ({num_prefix_tokens + prod(from_grid)}, embed_dim)"
        )
    prefix, grid = np.split(table, [num_prefix_tokens])
    grid = grid.reshape(*from_grid, -1)
    weights = _cubic_weights if interpolation == "bicubic" else _linear_weights
    for axis, sizes in enumerate(zip(from_grid, to_grid, strict=True)):
        grid = np.moveaxis(np.tensordot(weights(*sizes), grid, axes=(1, axis)), 0, axis)
    return np.concatenate([prefix, grid.reshape(-1, table.shape[1])]).astype(table.dtype)


def check_interpolation(interpolation: str) -> None:
    """Raise InputError if there is no such interpolation."""
    if interpolation not in INTERPOLATIONS:
        raise InputError(f"interpolation {interpolation!r}: choose 'bicubic' or 'bilinear'")


def equal_sides(positions: int, axes: int) -> tuple[int, ...] | None:
    """The square or cube of so many positions, if there is one."""
    side = round(max(positions, 0) ** (1 / axes))
    return (side,) * axes if side > 0 and side**axes == positions else None


def _cubic_weights(inputs: int, outputs: int) -> np.ndarray:
    """`(outputs, inputs)`: position i of the new grid lies at (i + ½) · inputs / outputs − ½ of the old one."""
    scale = inputs / outputs
    distance = np.arange(inputs) + 0.5 - scale * (np.arange(outputs)[:, None] + 0.5)
    x = np.abs(distance) / max(scale, 1)
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x**2 + 1
    far = CUBIC * (((x - 5) * x + 8) * x - 4)
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def _linear_weights(inputs: int, outputs: int) -> np.ndarray:
    """`(outputs, inputs)`: position i of the new grid lies at i · (inputs − 1) / (outputs − 1) of the old one."""
    place = np.arange(outputs) * (inputs - 1) / max(outputs - 1, 1)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(inputs)), 0)
