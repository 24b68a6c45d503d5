"""Inputs on which an export and its model are compared."""

import keras
import numpy as np

from kseq.data import CharacterEncoder

BATCHES = (1, 5)
LENGTHS = (3, 11)  # for axes that may have any length


def encoded_inputs(model: keras.Model, card: dict) -> list[np.ndarray]:
    """Random inputs of `model` at two batch sizes and, where its axes are free, two lengths."""
    random = np.random.default_rng(0)
    inputs = model.inputs[0]
    longest = card["characters"]["max_length"] if "characters" in card else LENGTHS[-1]
    highest = CharacterEncoder(**card["characters"]).vocabulary_size if "characters" in card else 2
    arrays = []
    for batch, length in zip(BATCHES, (min(LENGTHS[0], longest), longest), strict=True):
        shape = (batch, *(length if size is None else size for size in inputs.shape[1:]))
        if "int" in inputs.dtype:
            arrays.append(random.integers(1, highest, shape).astype(inputs.dtype))
        else:
            arrays.append(random.normal(size=shape).astype(inputs.dtype))
    return arrays


def random_words(encoder: CharacterEncoder, count: int, longest: int) -> list[str]:
    """`count` words of random characters, one of them `longest` characters long."""
    random = np.random.default_rng(1)
    lengths = [longest, *random.integers(1, longest + 1, count - 1)]
    return ["".join(random.choice(list(encoder.characters), length)) for length in lengths]


def difference(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference; infinite if the shapes differ."""
    if got.shape != expected.shape:
        return float("inf")
    return float(np.max(np.abs(got.astype("float64") - expected.astype("float64"))))
