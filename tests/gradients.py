"""Gradients of a function of arrays, by whichever backend runs."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops


def gradients(function: Callable, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The gradients of `function(*tensors)`, a scalar, with respect to each of `arrays`."""
    tensors = [ops.convert_to_tensor(array) for array in arrays]
    found = _BY_BACKEND[keras.backend.backend()](function, tensors)
    return [ops.convert_to_numpy(gradient) for gradient in found]


def _tensorflow(function, tensors):
    import tensorflow as tf

    @tf.function
    def differentiate(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        return tape.gradient(value, tensors, unconnected_gradients="zero")

    return differentiate(*tensors)


def _jax(function, tensors):
    import jax

    return jax.jit(jax.grad(function, argnums=tuple(range(len(tensors)))))(*tensors)


def _torch(function, tensors):
    import torch

    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    value = function(*tensors)
    return [g.detach() for g in torch.autograd.grad(value, tensors, allow_unused=True, materialize_grads=True)]


_BY_BACKEND = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
