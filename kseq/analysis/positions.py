"""What a position encoding adds to the tokens, and how alike it makes two positions."""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from kseq.analysis.tiles import draw_scale, draw_tiles
from kseq.errors import InputError, shorten
from kseq.layers.position_encoding import PositionEncoding

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def position_code(
    encoding: PositionEncoding, shape: Sequence[int] | None = None, *, axis: "Axes | None" = None
) -> np.ndarray:
    """The table P of a position encoding: row t is the vector p_t that it adds to the token at position t.

    Drawn as a heat map, positions down and dimensions across, red above 0 and blue below.

    Args:
        encoding: a `SinusoidalPositionEncoding` or `LearnedPositionEncoding`.
        shape: of an input without the batch, `(prefix + tokens, dim)` or `(*grid, dim)`; `None` is that in its model.
        axis: of matplotlib; `None` draws nothing.

    Returns:
        `(positions, dim)`: a grid's positions in row-major order, without the prefix tokens.

    Raises:
        InputError: if there is no such encoding or no shape, or the encoding refuses the shape.

    Source: the picture is known from the tutorials on Vaswani et al. 2017 (arXiv 1706.03762), section 3.5.
    """
    table, _ = _table(encoding, shape)
    if axis is not None:
        limit = np.abs(table).max()
        style = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "aspect": "auto", "interpolation": "nearest"}
        image = axis.imshow(table, **style)
        axis.set(xlabel="dimension", ylabel="position")
        draw_scale(axis, image, "")
    return table


def position_similarity(
    code: PositionEncoding | np.ndarray,
    grid_shape: Sequence[int] | None = None,
    *,
    cosine: bool = False,
    axis: "Axes | None" = None,
) -> np.ndarray:
    """How alike two positions are: K = P Pᵀ, so that K[t, u] = ⟨p_t, p_u⟩, or the cosine ⟨p_t, p_u⟩ / (‖p_t‖ ‖p_u‖).

    Of a sinusoidal code on one axis it depends on the distance alone: K[t, t + n] = Σ_k cos(ω_k n).

    Drawn as a heat map; on a grid of two axes as a small map for each patch, in the place of that patch, which shows
    how alike it is to all patches.

    Args:
        code: the encoding, a layer of a model, or its table P, `(positions, dim)`.
        grid_shape: positions along each axis of the table's grid; `None` is one axis, or the grid of the layer.
        cosine: whether to divide by the norms.
        axis: of matplotlib; `None` draws nothing.

    Returns:
        `(positions, positions)`.

    Raises:
        InputError: if the code is no encoding and no table, or does not fit the grid.

    Source: the maps of a grid are figure 7, centre, of Dosovitskiy et al. 2021 (arXiv 2010.11929).
    """
    if isinstance(code, PositionEncoding):
        table, grid = _table(code, None)
    else:
        table = np.asarray(code)
        if table.ndim != 2:
            raise InputError(f"code of shape {table.shape}: give a table (positions, dim), or a position encoding")
        grid = table.shape[:1]
    grid = tuple(grid_shape or grid)
    if prod(grid) != len(table):
        raise InputError(f"grid_shape {grid}: has {prod(grid)} positions; give one of {len(table)}, as the code has")
    if cosine:
        table = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), np.finfo("float32").tiny)
    similarity = table @ table.T
    if axis is not None:
        limit = 1.0 if cosine else np.abs(similarity).max()
        style = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "interpolation": "nearest"}
        if len(grid) == 2:
            rows, columns = grid
            images = draw_tiles(axis, similarity.reshape(-1, rows, columns), grid, columns=columns, **style)
            centres = np.array([image.get_extent() for image in images]).reshape(rows, columns, 2, 2).mean(axis=-1)
            axis.set_xticks(centres[0, :, 0], range(columns))
            axis.set_yticks(centres[:, 0, 1], range(rows))
            axis.tick_params(length=0)
            axis.set(xlabel="column of the patch", ylabel="row of the patch")
        else:
            images = [axis.imshow(similarity, **style)]
            axis.set(xlabel="position", ylabel="position")
        draw_scale(axis, images[0], "cosine similarity" if cosine else r"$\langle p_t, p_u\rangle$")
    return similarity


def _table(encoding: PositionEncoding, shape: Sequence[int] | None) -> tuple[np.ndarray, tuple[int, ...]]:
    """P, and the grid of its positions."""
    if not isinstance(encoding, PositionEncoding):
        raise InputError(
            f"encoding {getattr(encoding, 'name', None) or shorten(encoding)}: a {type(encoding).__name__}; give a "
            "SinusoidalPositionEncoding or LearnedPositionEncoding, such as model.get_layer('position_encoding')"
        )
    if shape is None:
        in_model = getattr(encoding, "input", None)
        if in_model is None:
            raise InputError(f"shape None: layer {encoding.name} is in no model; give (tokens, dim) or (*grid, dim)")
        shape = in_model.shape[1:]
    if len(shape) < 2 or any(not size for size in shape):
        raise InputError(f"shape {tuple(shape)}: give known sizes, (tokens, dim) or (*grid, dim)")
    table = ops.convert_to_numpy(ops.cast(encoding(np.zeros((1, *shape), "float32")), "float32"))
    table = table.reshape(-1, shape[-1])[encoding.num_prefix_tokens :]
    return table, tuple(shape[:-1]) if len(shape) > 2 else encoding.grid_shape or table.shape[:1]
