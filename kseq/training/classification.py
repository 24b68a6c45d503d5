"""Figures of a classifier on held-out data."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def classification_metrics(targets: np.ndarray, predictions: np.ndarray, class_names: tuple[str, ...]) -> dict:
    """Accuracy, macro-F1, per-class precision, recall, F1 and the confusion matrix, by scikit-learn.

    Args:
        targets: class indices `(samples,)`.
        predictions: class indices `(samples,)`.
        class_names: of the indices.

    Returns:
        `{"accuracy", "macro_f1", "classes": {name: {"precision", "recall", "f1-score", "support"}}, "confusion"}`, the
        confusion matrix with a row a true class and a column a predicted one.
    """
    from sklearn.metrics import classification_report, confusion_matrix

    labels = range(len(class_names))
    report = classification_report(
        targets, predictions, labels=labels, target_names=class_names, output_dict=True, zero_division=0
    )
    return {
        "accuracy": float(np.mean(np.asarray(targets) == np.asarray(predictions))),
        "macro_f1": report["macro avg"]["f1-score"],
        "classes": {name: report[name] for name in class_names},
        "confusion": confusion_matrix(targets, predictions, labels=labels).tolist(),
    }


def plot_confusion(metrics: dict, title: str = "") -> "Figure":
    """Draw the confusion matrix of `classification_metrics`: counts, coloured by the share of the true class."""
    from matplotlib.figure import Figure

    counts = np.array(metrics["confusion"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = list(metrics["classes"])
    figure = Figure(figsize=(1.6 + 0.9 * len(names), 1.2 + 0.8 * len(names)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axis.text(column, row, f"{count:,}\n{shares[row, column]:.0%}", ha="center", va="center", color=colour)
    axis.set(xticks=range(len(names)), yticks=range(len(names)), xlabel="predicted", ylabel="true", title=title)
    axis.set_xticklabels(names)
    axis.set_yticklabels(names)
    figure.colorbar(image, ax=axis, label="share of the true class")
    return figure
