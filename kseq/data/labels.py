"""Maps of labels: the class of every pixel."""

import numpy as np

from kseq.errors import InputError


def check_labels(labels: np.ndarray, num_classes: int, ignore_label: int | None = None) -> None:
    """Raise an `InputError` that names the values of `labels` that are no class.

    A class is a whole number from 0 to `num_classes` − 1. Masks of many sources hold 255 at borders between objects
    (give it as `ignore_label`), 0 and 255 for two classes, or are floats after a resize.

    Args:
        labels: integers of any shape.
        num_classes: with the background.
        ignore_label: another value that is allowed: pixels that count nowhere.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise InputError(
            f"labels of type {labels.dtype}: give integers, the class of every pixel (labels.astype('uint8'))"
        )
    if labels.size == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < num_classes:
        return
    found = np.unique(labels)
    bad = [value for value in found.tolist() if not 0 <= value < num_classes and value != ignore_label]
    if bad:
        some = ", ".join(str(value) for value in bad[:8]) + (", …" if len(bad) > 8 else "")
        ignored = "" if ignore_label is None else f" and the ignored {ignore_label}"
        raise InputError(
            f"labels hold {some}; {num_classes} classes are 0 to {num_classes - 1}{ignored}; renumber them, or give "
            "the label of pixels that do not count as ignore_label"
        )
