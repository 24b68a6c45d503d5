"""Initial weights by NumPy: JAX compiles a generator for each shape, which takes longer than compiling the model."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
import pytest


@contextmanager
def numpy_initializers() -> Iterator[None]:
    """Within it, Glorot, He and LeCun initializers draw normal numbers of a like scale from NumPy."""
    random = np.random.default_rng(0)

    def draw(self, shape, dtype=None):
        fan = max(np.prod(shape[:-1]), 1)
        return keras.ops.convert_to_tensor(random.normal(size=shape, scale=fan**-0.5), dtype or keras.config.floatx())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.initializers.VarianceScaling, "__call__", draw)
        yield
