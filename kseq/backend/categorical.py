"""Drawing by logits with random numbers that depend on given tensors alone."""

import keras
from keras import ops


class _Given(keras.random.SeedGenerator):
    """A seed that is a tensor, which `keras.random` takes from a `SeedGenerator` only (Keras 3.15)."""

    def __init__(self, state):
        self.state = state

    def next(self, ordered=True):
        return self.state


def categorical(logits, seed, index):
    """One number for each row, i with probability softmax(logits)_i; the same for the same seed and index.

    A `SeedGenerator` of Keras would go on where the last call ended: the same seed, another result.

    Args:
        logits: `(batch, classes)`, float32.
        seed: int32, a scalar tensor.
        index: int32, a scalar tensor: the step of a loop.

    Returns:
        int32 `(batch,)`.
    """
    # PyTorch adds the two numbers of a state, so neighbouring seeds are sent far apart: an odd factor, modulo 2³².
    state = ops.stack([ops.cast(seed, "int32") * 1640531527, ops.cast(index, "int32")])
    state = ops.cast(state, "uint32" if keras.backend.backend() == "jax" else "int32")
    return keras.random.categorical(logits, 1, dtype="int32", seed=_Given(state))[:, 0]
