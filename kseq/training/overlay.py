"""Pictures of segmentations: image, truth and prediction beside each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kseq.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Bright on grey images, and apart from each other for the colour-blind as well (after Okabe and Ito).
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2", "#b2df8a", "#fb9a99", "#cab2d6")


def plot_overlays(
    images: np.ndarray,
    truths: np.ndarray,
    predictions: np.ndarray | None,
    class_names: Sequence[str],
    *,
    background: int | None = 0,
    ignore_label: int | None = None,
    colours: Sequence[str] = COLOURS,
    opacity: float = 0.45,
    titles: Sequence[str] | None = None,
) -> "Figure":
    """Draw a row an image: the image, the truth on it, and the prediction on it with the outline of the truth in white.

    Args:
        images: `(samples, height, width, channels)`, of any range; one channel is grey, three are red, green and blue,
            of another number the first is shown.
        truths: class indices `(samples, height, width)`.
        predictions: the same shape, or `None` for none.
        class_names: of the indices.
        background: index of the class that is not coloured; `None` for none.
        ignore_label: of true pixels that do not count; they are hatched.
        colours: of the classes without the background, from the first again if there are more.
        opacity: of the colours, 0 to 1.
        titles: of the rows.

    Raises:
        InputError: if the shapes do not fit.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    panels = [("truth", truths)] if predictions is None else [("truth", truths), ("prediction", predictions)]
    if images.ndim != 4 or any(labels.shape != images.shape[:3] for _, labels in panels):
        raise InputError(
            f"images {images.shape}, truths {truths.shape}: give images (samples, height, width, channels) and class "
            "indices (samples, height, width); of volumes give slices"
        )
    classes = [index for index in range(len(class_names)) if index != background]
    palette = {index: to_rgb(colours[place % len(colours)]) for place, index in enumerate(classes)}
    rows, height = len(images), 2.5 * images.shape[1] / images.shape[2]
    figure = Figure(
        figsize=(2.5 * (1 + len(panels)) + 0.25 * (titles is not None), rows * height + 0.75), layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    axes = figure.subplots(rows, 1 + len(panels), squeeze=False)
    for row, (image, *cells) in enumerate(zip(images, *(labels for _, labels in panels), strict=True)):
        shown = _shown(image)
        axes[row, 0].imshow(shown)
        if titles is not None:
            axes[row, 0].set_ylabel(titles[row], fontsize=9)
        for axis, labels in zip(axes[row, 1:], cells, strict=True):
            axis.imshow(_coloured(shown, labels, palette, opacity))
            for index in classes:
                _outline(axis, labels == index, palette[index], 1.0)
            if labels is not cells[0]:
                for index in classes:
                    _outline(axis, cells[0] == index, "white", 0.7)
            elif ignore_label is not None and (labels == ignore_label).any():
                ignored = (labels == ignore_label).astype("float32")
                axis.contourf(ignored, (0.5, 1.5), colors="none", hatches=["/////"])
        for axis in axes[row]:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for axis, title in zip(axes[0], ("image", *(name for name, _ in panels)), strict=True):
        axis.set_title(title, fontsize=10)
    handles = [Patch(facecolor=palette[index], label=class_names[index]) for index in classes]
    if predictions is not None:
        handles.append(Line2D([], [], color="white", linewidth=1.2, label="outline of the truth"))
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 4), fontsize=9, facecolor="#d0d0d0"
    )
    legend.get_frame().set_linewidth(0)
    return figure


def _shown(image: np.ndarray) -> np.ndarray:
    """The image as red, green and blue from 0 to 1, a thousandth of the pixels cut at either end."""
    image = image[..., :3] if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, axis=-1)
    low, high = np.percentile(image.astype("float64"), (0.1, 99.9))
    return np.clip((image - low) / max(high - low, 1e-12), 0, 1)


def _coloured(shown: np.ndarray, labels: np.ndarray, palette: dict, opacity: float) -> np.ndarray:
    shown = shown.copy()
    for index, colour in palette.items():
        mask = labels == index
        shown[mask] = (1 - opacity) * shown[mask] + opacity * np.array(colour)
    return shown


def _outline(axis, mask: np.ndarray, colour, width: float) -> None:
    """Draw the border of `mask` along the edges of its pixels."""
    if not mask.any():
        return
    padded = np.pad(mask, 1).astype("int8")
    down, right = np.argwhere(np.diff(padded[:, 1:-1], axis=0)), np.argwhere(np.diff(padded[1:-1], axis=1))
    # An edge below row y − 1 runs from (x − ½, y − ½) to (x + ½, y − ½).
    lines = [[(x - 0.5, y - 0.5), (x + 0.5, y - 0.5)] for y, x in down]
    lines += [[(x - 0.5, y - 0.5), (x - 0.5, y + 0.5)] for y, x in right]
    from matplotlib.collections import LineCollection

    axis.add_collection(LineCollection(lines, colors=[colour], linewidths=width, capstyle="round"))
