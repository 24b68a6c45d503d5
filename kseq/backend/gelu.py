"""The exact GELU."""

import math

import keras
from keras import ops

from kseq.backend.scan import with_gradient


def gelu(x, *, training=False):
    """GELU(x) = x Φ(x) = x (1 + erf(x / √2)) / 2, within 1e-6 of `keras.activations.gelu`.

    In training TensorFlow keeps the slope, Φ(x) + x φ(x), for its gradient, and JAX computes erf where Keras's form
    makes it compute erfc, at twice the price. Source: Hendrycks & Gimpel 2016 (arXiv 1606.08415).

    Args:
        x: of any shape.
        training: whether a gradient is to be expected.
    """
    backend = keras.backend.backend()
    if backend == "torch" or (backend == "jax" and not training):  # TensorFlow cannot load the erf of JAX
        return keras.activations.gelu(x, approximate=False)
    if backend == "jax":
        return _gelu(x)

    def forward(x):
        share = 0.5 + 0.5 * ops.erf(x * math.sqrt(0.5))  # Φ(x)
        density = math.sqrt(0.5 / math.pi) * ops.exp(-0.5 * x * x)
        return x * share, (share + x * density,)

    return with_gradient(_gelu, forward, lambda kept, gradient: (gradient[0] * kept[0],), training=training)(x)


def _gelu(x):
    half = 0.5 * x
    return half + half * ops.erf(x * math.sqrt(0.5))
