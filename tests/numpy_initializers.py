"""Initial weights by NumPy: JAX compiles a generator for each shape, which takes longer than compiling the model."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
import pytest


@contextmanager
def numpy_initializers() -> Iterator[None]:
    """Within it, random initializers draw normal numbers from NumPy, of their deviation or of LeCun's."""
    random = np.random.default_rng(0)

    def draw(self, shape, dtype=None):
        fan = max(np.prod(shape[:-1]), 1)
        values = random.normal(size=shape, scale=getattr(self, "stddev", fan**-0.5))
        return keras.ops.convert_to_tensor(values, dtype or keras.config.floatx())

    with pytest.MonkeyPatch.context() as patch:
        for name in ("VarianceScaling", "RandomNormal", "TruncatedNormal", "Orthogonal"):
            patch.setattr(getattr(keras.initializers, name), "__call__", draw)
        yield
