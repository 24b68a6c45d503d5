"""The learning curves of a run."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def read_history(path: str | Path) -> dict[str, list[float]]:
    """The columns of a `history.csv`."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows] for key in rows[0]}


def plot_history(path: str | Path) -> "Figure":
    """Draw a `history.csv`: one panel a figure (loss, accuracy, …), training and validation in it."""
    from matplotlib.figure import Figure

    history = read_history(path)
    epochs = history["epoch"]
    names = [name for name in history if f"val_{name}" in history]
    figure = Figure(figsize=(5 * len(names), 3.6), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        axis.plot(epochs, history[name], marker="o", markersize=3, label="training")
        axis.plot(epochs, history[f"val_{name}"], marker="o", markersize=3, label="validation")
        axis.set(xlabel="epoch", ylabel=name.replace("_", " "))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    return figure
