"""A function of tensors compiled as each backend compiles, outside of `fit` and `predict`."""

from collections.abc import Callable

import keras
from keras import ops


def compiled(function: Callable, variables: list) -> Callable:
    """`function` for inference: `jax.jit`, `tf.function`, or PyTorch without gradients.

    The values of the variables are read at each call, so training may go on between calls. On JAX they are arguments of
    what is compiled; as constants they would be held twice and never change.

    Shapes that are new are compiled anew on JAX. TensorFlow compiles a second time, then takes the sizes that differed
    for unknown. Round lengths up (sources to a multiple of 8, say) where many occur.

    Args:
        function: takes and returns nested tuples of tensors; it may read `variables`, and assigns none.
        variables: the Keras variables that it reads, `model.variables`.

    Returns:
        A function of the same arguments, NumPy arrays or tensors. Keep it: what is compiled lives and dies with it.
    """
    return _COMPILERS[keras.backend.backend()](function, list(variables))


def _compiled_jax(function, variables):
    import jax

    @jax.jit
    def run(values, *arguments):
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
            return function(*arguments)

    return lambda *arguments: run([variable.value for variable in variables], *_tensors(arguments))


def _compiled_tensorflow(function, _):
    import tensorflow as tf

    run = tf.function(function, reduce_retracing=True, autograph=False)
    return lambda *arguments: run(*_tensors(arguments))  # tensors, for a number would be compiled in


def _compiled_torch(function, _):
    import torch

    def run(*arguments):
        with torch.no_grad():  # inference_mode would leave tensors behind in caches that training must not use
            return function(*_tensors(arguments))

    return run


def _tensors(arguments):
    return keras.tree.map_structure(ops.convert_to_tensor, arguments)


_COMPILERS = {"jax": _compiled_jax, "tensorflow": _compiled_tensorflow, "torch": _compiled_torch}
