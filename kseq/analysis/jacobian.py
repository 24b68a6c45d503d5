"""Derivatives of a function of independent rows, by the automatic differentiation of the backend."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops


def row_jacobians(function: Callable, points) -> np.ndarray:
    """∂f(x)_i/∂x_j at each row x of `points`, for a function that maps each row by itself.

    As no row depends on another, one backward pass with the unit vector e_i in every row gives row i of all Jacobians.

    Args:
        function: of `keras.ops`, from `(rows, n)` to `(rows, m)`.
        points: `(rows, n)`.

    Returns:
        `(rows, m, n)`, in float64.
    """
    values, pull_back = _vector_jacobian_product(function, ops.convert_to_tensor(points))
    rows, m = values.shape
    unit_vectors = np.eye(m, dtype="float32")
    return np.stack([pull_back(np.broadcast_to(e, (rows, m))) for e in unit_vectors], axis=1)


def gradient(function: Callable, points) -> np.ndarray:
    """∂(Σ f)/∂x at `points`, the sum over everything that `function` returns; in float64, of the shape of `points`."""
    values, pull_back = _vector_jacobian_product(function, ops.convert_to_tensor(points))
    return pull_back(np.ones(tuple(values.shape), dtype="float32"))


def _vector_jacobian_product(function: Callable, points) -> tuple:
    """f(x), and the map of a NumPy array v, of the shape of f(x), to vᵀ ∂f/∂x."""
    if keras.backend.backend() == "jax":
        import jax

        values, transposed = jax.vjp(function, points)
        compiled = jax.jit(lambda v: transposed(v)[0])

        def derivative(v):
            return compiled(v)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(persistent=True) as tape:
            tape.watch(points)
            values = function(points)

        def derivative(v):
            return tape.gradient(values, points, output_gradients=v, unconnected_gradients="zero")
    else:
        import torch

        with torch.enable_grad():
            points = points.detach().requires_grad_()
            values = function(points)

        def derivative(v):
            (slope,) = torch.autograd.grad(values, points, v, retain_graph=True, allow_unused=True)
            return torch.zeros_like(points) if slope is None else slope

    def pull_back(v: np.ndarray) -> np.ndarray:
        slope = derivative(ops.convert_to_tensor(v, dtype=values.dtype))
        return ops.convert_to_numpy(ops.cast(slope, _numpy_dtype(slope))).astype("float64")

    return values, pull_back


def _numpy_dtype(tensor) -> str:
    # NumPy has no bfloat16
    return "float64" if keras.backend.standardize_dtype(tensor.dtype) == "float64" else "float32"
