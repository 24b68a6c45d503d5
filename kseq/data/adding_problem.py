"""The adding problem: the standard test of whether a recurrent network carries information over many steps."""

import numpy as np

from kseq.data.dataset import Arrays, Entry
from kseq.errors import InputError, shorten

ENTRY = Entry(
    name="adding_problem",
    task="two marked numbers of a long sequence → their sum",
    size="any number of sequences, of any length",
    source="Hochreiter & Schmidhuber 1997, generated",
    licence="none needed",
)


def adding_problem(samples: int, length: int, seed: int | tuple[int, ...]) -> Arrays:
    """Sequences of random numbers of which two are marked; the target is the sum of these two.

    Channel 0 is uniform on [0, 1), channel 1 is zero but for two ones. One mark stands at a position drawn uniformly
    from the first half, steps [0, length // 2), the other from the second half: the first number must be kept for T/2
    to T steps. Whoever always answers the mean, 1, has a mean squared error of Var(a + b) = 1/6 ≈ 0.1667, the chance
    line.

    Source: Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9, 1997, with sequences of varying
    length and both marks in the first half; numbers in [0, 1] and a fixed length as Le, Jaitly & Hinton 2015
    (arXiv 1504.00941); a mark in each half as Arjovsky, Shah & Bengio, ICML 2016 (arXiv 1511.06464).

    Args:
        samples: number of sequences.
        length: steps of each, T.
        seed: of `numpy.random.default_rng`; the same seed gives the same sequences on every backend.

    Returns:
        Inputs `(samples, length, 2)` and targets `(samples, 1)`, both float32.

    Raises:
        InputError: for fewer than 1 sample or 2 steps.
    """
    if samples < 1:
        raise InputError(f"samples {shorten(samples)}: give 1 or more")
    if length < 2:
        raise InputError(f"length {shorten(length)}: no room for two marks; give 2 or more")
    random = np.random.default_rng(seed)
    inputs = np.zeros((samples, length, 2), "float32")
    inputs[..., 0] = random.random((samples, length), "float32")
    rows = np.arange(samples)
    marks = (random.integers(0, length // 2, samples), random.integers(length // 2, length, samples))
    for mark in marks:
        inputs[rows, mark, 1] = 1
    targets = sum(inputs[rows, mark, 0] for mark in marks)
    return inputs, targets[:, None]
