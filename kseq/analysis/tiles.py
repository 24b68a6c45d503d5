"""Small maps side by side on one axis, alone or over the images to which they belong."""

from collections.abc import Sequence
from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

_GAP, _LABEL = 0.12, 0.24  # between tiles, and above one with a label, in units of its size
_BRIGHTNESS = 0.6  # of an image under a map, in units of its own
_OPACITY = 0.9  # of the highest value of a map


def draw_tiles(
    axis: "Axes",
    tiles: np.ndarray,
    size: tuple[float, float],
    *,
    columns: int | None = None,
    labels: Sequence[str] = (),
    covers: tuple[float, float] | None = None,
    alpha: np.ndarray | None = None,
    **style,
) -> list["AxesImage"]:
    """Draw each tile as an image of its own, in rows from the upper left.

    Args:
        axis: where; it loses its frame.
        tiles: `(n, height, width)`, or `(n, height, width, 3)` for colours.
        size: height and width of a tile on the axis.
        columns: tiles in a row; `None` for about twice as many as there are rows.
        labels: what stands above the tiles.
        covers: height and width on the axis of what a tile shows, if not `size`.
        alpha: opacities `(n, height, width)`.
        **style: arguments of `imshow`.
    """
    columns = columns or ceil(len(tiles) / max(round(sqrt(len(tiles) / 2)), 1))
    height, width = size
    below, beside = covers or size
    gap, room = _GAP * width, (_LABEL if labels else _GAP) * height
    images = []
    for n, tile in enumerate(tiles):
        top, left = n // columns * (height + room), n % columns * (width + gap)
        opacity = None if alpha is None else alpha[n]
        images.append(axis.imshow(tile, extent=(left, left + beside, top + below, top), alpha=opacity, **style))
        if labels:
            place = {"ha": "center", "va": "bottom", "fontsize": "small"}
            axis.text(left + width / 2, top - 0.03 * height, labels[n], **place)
    bottom, right = ceil(len(tiles) / columns) * (height + room) - room, columns * (width + gap) - gap
    axis.set(xlim=(0, right), ylim=(bottom, -room if labels else 0))
    axis.set(xticks=[], yticks=[], aspect="equal")
    axis.spines[:].set_visible(False)
    return images


def draw_over(
    axis: "Axes", images: np.ndarray, maps: np.ndarray, covers: tuple[float, float], labels: Sequence[str] = ()
) -> list["AxesImage"]:
    """Draw maps over images: clear at the lowest value of a map, the strongest colour at its highest.

    Args:
        axis: where.
        images: `(n, height, width, channels)`, drawn from their darkest to their brightest value, in colour if they
            have three channels.
        maps: `(n, rows, columns)`.
        covers: height and width of what a map shows, in pixels.
        labels: what stands above the images.
    """
    images = images.astype("float32")
    images = images if images.shape[-1] == 3 else images.mean(axis=-1)
    lowest, highest = images.min(), images.max()
    images = (images - lowest) / max(highest - lowest, np.finfo("float32").tiny)
    size = images.shape[1:3]
    draw_tiles(axis, _BRIGHTNESS * images, size, cmap="gray", vmin=0, vmax=1, labels=labels)
    maps = maps - maps.min(axis=(1, 2), keepdims=True)
    shares = maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), np.finfo("float32").tiny)
    style = {"cmap": "inferno", "vmin": 0, "vmax": 1, "interpolation": "bilinear", "alpha": _OPACITY * shares}
    return draw_tiles(axis, shares, size, covers=covers, labels=[""] * len(labels), **style)


def draw_scale(axis: "Axes", image: "AxesImage", label: str) -> None:
    """A scale of colours to the right of the axis and as high, whatever the shape of the axis."""
    axis.figure.colorbar(image, cax=axis.inset_axes((1.02, 0, 0.025, 1)), label=label)
