"""What the data sets have in common."""

from dataclasses import dataclass

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Entry:
    """A line of the catalogue that `kseq data` prints: what a data set is and where it comes from."""

    name: str
    task: str
    size: str
    source: str
    licence: str


@dataclass(frozen=True)
class DataSet:
    """A classification data set, split once and for all.

    Attributes:
        train: `(inputs, targets)`; targets are `int32` class indices of shape `(samples,)`.
        validation: the same, for choosing a model.
        test: the same, for the final figures.
        class_names: the name of each class index.
        source: where the data come from, and their licence.
    """

    train: Arrays
    validation: Arrays
    test: Arrays
    class_names: tuple[str, ...]
    source: str
