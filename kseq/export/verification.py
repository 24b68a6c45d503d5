"""What an export and its model are compared on."""

from dataclasses import dataclass
from typing import Any

import numpy as np

BATCHES = (1, 5)
LENGTHS = (3, 11)  # for axes that may have any length


@dataclass(frozen=True)
class Trial:
    """Raw inputs on which a signature is tried.

    Attributes:
        signature: its name.
        shape: of the raw inputs, for the record.
        raw: what the signature reads.
        encoded: what the model reads, made of it by the encoder of the card.
    """

    signature: str
    shape: tuple[int, ...]
    raw: Any
    encoded: np.ndarray


def encoded_inputs(model, raw) -> list[np.ndarray]:
    """Random inputs of `model` at two batch sizes and, where its axes are free, two lengths.

    Args:
        model: a Keras model with one input.
        raw: what it reads (`kseq.export.raw.raw_input`), or `None`.
    """
    random = np.random.default_rng(0)
    inputs = model.inputs[0]
    arrays = []
    for batch, length in zip(BATCHES, raw.lengths if raw else LENGTHS, strict=True):
        shape = (batch, *(length if size is None else size for size in inputs.shape[1:]))
        if "int" in inputs.dtype:
            arrays.append(random.integers(1, getattr(raw, "highest", 2), shape).astype(inputs.dtype))
        else:
            arrays.append(random.normal(size=shape).astype(inputs.dtype))
    return arrays


def difference(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference; infinite if the shapes differ."""
    if got.shape != expected.shape:
        return float("inf")
    return float(np.max(np.abs(got.astype("float64") - expected.astype("float64"))))
