"""Figures of segmentations of held-out images: overlap and distances of surfaces, of each class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kseq.data.labels import check_labels
from kseq.errors import InputError
from kseq.training.surface_distance import surface_distances

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("dice", "iou", "hd95", "assd", "surface_dice")


def segmentation_metrics(
    truth: np.ndarray | Sequence[np.ndarray],
    prediction: np.ndarray | Sequence[np.ndarray],
    class_names: tuple[str, ...],
    spacing: Sequence[float] | None = None,
    *,
    tolerance: float = 1.0,
    ignore_label: int | None = None,
    background: int | None = 0,
) -> dict:
    """Of every image and class, with T the true pixels, A the predicted ones and S their surfaces:

        dice          2 |T ∩ A| / (|T| + |A|)
        iou           |T ∩ A| / |T ∪ A|
        hd95          the larger of the 95 % quantiles of the distances from S_T to S_A and from S_A to S_T
        assd          the mean of all these distances, both directions together
        surface_dice  the share of both surfaces that is at most `tolerance` from the other one

    A surface is the pixels of a mask that have a neighbour outside it along an axis (`surface_distance.surface`), as in
    MONAI, each of the same weight; DeepMind's surface-distance weighs pieces between pixels by their area instead.

    The hd95 is MONAI's. That of medpy, which TransUNet and Swin-Unet report, is the 95 % quantile of both sets of
    distances together.

    A class that an image has neither truly nor predicted has no figures there and counts in no mean. If it has only one
    of the two, the overlaps are 0 and the distances, which would be infinite, do not count: `missed` and `invented` say
    in how many images, and have to be read together with the distances. TransUNet's evaluation counts an invented class
    as Dice 1 and distance 0; this does not.

    Args:
        truth: class indices `(images, *space)`, or a sequence of `(*space)` of different sizes.
        prediction: the same shape.
        class_names: of the indices, the background included.
        spacing: millimetres (or another unit) from a pixel to the next along each axis; one of each image,
            `(images, axes)`, if they differ; `None` for 1.
        tolerance: of `surface_dice`, in the unit of `spacing`.
        ignore_label: of true pixels that count nowhere; both masks lose them.
        background: index of the class that gets no figures; `None` for none.

    Returns:
        `{"classes": {name: {figure: mean over images, …, "pooled_dice", "pooled_iou", "pixels", "predicted_pixels",
        "images", "missed", "invented"}}, "mean": {figure: mean of the classes'}, "pooled": {"dice", "iou", "accuracy"},
        "images": {name: {figure: [one an image]}}, "tolerance", "spacing"}`. Pooled figures count the pixels of all
        images first; "images" of a class are those that truly have it. `None` stands where a figure has no value.

    Raises:
        InputError: if the shapes, the spacing or the labels do not fit.
    """
    names = {index: name for index, name in enumerate(class_names) if index != background}
    if len(truth) != len(prediction) or len(truth) == 0:
        raise InputError(f"truth, prediction: {len(truth)} and {len(prediction)} images; give as many, at least one")
    axes = np.ndim(truth[0])
    spacings = np.ones(axes) if spacing is None else np.asarray(spacing, "float64")
    if spacings.shape not in ((axes,), (len(truth), axes)) or not (spacings > 0).all():
        raise InputError(f"spacing {spacing!r}: give {axes} numbers above 0, one for each axis of an image")
    spacings = np.broadcast_to(spacings, (len(truth), axes))
    if not tolerance >= 0:
        raise InputError(f"tolerance {tolerance!r}: give 0 or more")

    values = np.full((len(names), len(FIGURES), len(truth)), np.nan)
    counts = np.zeros((len(names), 3, len(truth)), "int64")  # both, true, predicted
    right = valid_pixels = 0
    for image, (true, predicted) in enumerate(zip(truth, prediction, strict=True)):
        true, predicted = np.asarray(true), np.asarray(predicted)
        if true.shape != predicted.shape or true.ndim != axes:
            raise InputError(f"image {image}: truth of shape {true.shape}, prediction of {predicted.shape}; give equal")
        check_labels(true, len(class_names), ignore_label)
        check_labels(predicted, len(class_names))
        valid = np.ones(true.shape, bool) if ignore_label is None else true != ignore_label
        right, valid_pixels = right + int(((true == predicted) & valid).sum()), valid_pixels + int(valid.sum())
        for row, index in enumerate(names):
            masks = (true == index) & valid, (predicted == index) & valid
            counts[row, :, image] = (masks[0] & masks[1]).sum(), masks[0].sum(), masks[1].sum()
            values[row, :, image] = _figures(*masks, counts[row, :, image], spacings[image], tolerance)

    classes = {
        name: dict(zip(FIGURES, map(_mean, values[row]), strict=True)) | _pooled(counts[row])
        for row, name in enumerate(names.values())
    }
    return {
        "classes": classes,
        "mean": {figure: _mean([row[figure] for row in classes.values()]) for figure in FIGURES},
        "pooled": {
            "dice": _mean([row["pooled_dice"] for row in classes.values()]),
            "iou": _mean([row["pooled_iou"] for row in classes.values()]),
            "accuracy": right / valid_pixels if valid_pixels else None,
        },
        "images": {
            name: {figure: list(map(_number, values[row, i])) for i, figure in enumerate(FIGURES)}
            for row, name in enumerate(names.values())
        },
        "tolerance": float(tolerance),
        "spacing": np.unique(spacings, axis=0).tolist(),
    }


def _figures(true: np.ndarray, predicted: np.ndarray, counts: np.ndarray, spacing, tolerance) -> tuple[float, ...]:
    """The `FIGURES` of two masks; `counts` are the pixels of both, of the one and of the other."""
    both, first, second = map(int, counts)
    if not first and not second:
        return (np.nan,) * len(FIGURES)
    if not first or not second:
        return 0.0, 0.0, np.nan, np.nan, 0.0
    around = _box(true | predicted)
    there, back = surface_distances(true[around], predicted[around], spacing)
    together = np.concatenate((there, back))
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    # A distance of exactly the tolerance is within it, whatever its last digit became.
    within = together <= tolerance * (1 + 1e-9)
    return 2 * both / (first + second), both / (first + second - both), hd95, together.mean(), within.mean()


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around what is true, which is a surface wherever the box ends."""
    slices = []
    for axis in range(mask.ndim):
        there = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        slices.append(slice(int(there[0]), int(there[-1]) + 1))
    return tuple(slices)


def _pooled(counts: np.ndarray) -> dict:
    both, true, predicted = map(int, counts.sum(axis=1))
    return {
        "pooled_dice": 2 * both / (true + predicted) if true + predicted else None,
        "pooled_iou": both / (true + predicted - both) if true + predicted else None,
        "pixels": true,
        "predicted_pixels": predicted,
        "images": int((counts[1] > 0).sum()),
        "missed": int(((counts[1] > 0) & (counts[2] == 0)).sum()),
        "invented": int(((counts[1] == 0) & (counts[2] > 0)).sum()),
    }


def _mean(values) -> float | None:
    values = np.array([np.nan if value is None else value for value in values], "float64")
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def segmentation_table(metrics: dict) -> str:
    """The figures of `segmentation_metrics` as lines of text, a class a line and the mean below."""
    width = max(5, *map(len, metrics["classes"]))
    heads = ("Dice", "IoU", "HD95", "ASSD", f"NSD@{metrics['tolerance']:g}")
    lines = [f"{'':{width}}" + "".join(f"{head:>9}" for head in heads) + f"{'images':>9}{'missed':>9}{'invented':>9}"]
    for name, row in (*metrics["classes"].items(), ("mean", metrics["mean"])):
        cells = ["–" if row[figure] is None else f"{row[figure]:.2f}" for figure in ("hd95", "assd")]
        shares = ["–" if row[figure] is None else f"{row[figure]:.3f}" for figure in ("dice", "iou", "surface_dice")]
        numbers = [row[key] for key in ("images", "missed", "invented") if key in row]
        cells = [*shares[:2], *cells, shares[2], *map(str, numbers)]
        lines.append(f"{name:{width}}" + "".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)


def plot_segmentation(metrics: dict, title: str = "") -> "Figure":
    """Draw the Dice scores of `segmentation_metrics`: a dot an image, a bar at the mean of each class."""
    from matplotlib.figure import Figure

    names = list(metrics["images"])
    figure = Figure(figsize=(1.8 + 1.1 * len(names), 3.6), layout="constrained")
    axis = figure.subplots()
    for place, name in enumerate(names):
        scores = np.array([score for score in metrics["images"][name]["dice"] if score is not None])
        # Beside each other, in an order that hides no dots, and the same in every picture.
        aside = 0.5 * ((np.arange(len(scores)) * 0.618) % 1 - 0.5)
        axis.scatter(place + aside, scores, s=14, alpha=0.5, linewidths=0)
        if len(scores):
            axis.hlines(scores.mean(), place - 0.35, place + 0.35, color="black", linewidth=1.5)
            axis.annotate(
                f"{scores.mean():.3f}", (place + 0.35, scores.mean()), (2, 2), textcoords="offset points", fontsize=8
            )
    axis.set(xticks=range(len(names)), ylim=(-0.03, 1.03), ylabel="Dice", title=title)
    axis.set_xticklabels(names)
    axis.set_xlim(-0.6, len(names) - 0.2)
    axis.grid(axis="y", alpha=0.3)
    return figure
