"""Which form of a recurrent layer runs on which backend."""

import keras
from keras import ops

from kseq.backend.recurrence import SLOPES, GRUEquations, LSTMEquations, SimpleRNNEquations
from kseq.backend.recurrence import recurrence as portable_recurrence
from kseq.backend.scan import scan

__all__ = [
    "SLOPES",
    "GRUEquations",
    "LSTMEquations",
    "SimpleRNNEquations",
    "has_keras_kernel",
    "plain_recurrence",
    "portable_recurrence",
    "recurrence",
]


def recurrence(equations, *arguments, **options):
    """`kseq.backend.recurrence.recurrence`; on PyTorch its own kernel where it has one."""
    if keras.backend.backend() == "torch":
        from kseq.backend import torch_kernels

        if equations in torch_kernels.KERNELS:
            return torch_kernels.recurrence(equations, *arguments, **options)
    return portable_recurrence(equations, *arguments, **options)


def plain_recurrence(cell, x, mask, states, training, *, masked="hold"):
    """A Keras cell step by step, differentiated by the backend; results, and `masked`, as of `recurrence`."""
    if mask is not None:
        x = ops.where(mask[..., None], x, 0)
    sequences = (ops.transpose(x, (1, 0, 2)),)  # (time, batch, dim)
    if mask is not None:
        sequences += (ops.transpose(mask)[..., None],)  # (time, batch, 1)

    def step(states, inputs):
        x_t, *valid = inputs
        _, new = cell.call(x_t, list(states), training=training)
        if valid:
            new = [ops.where(valid[0], n, s) for n, s in zip(new, states, strict=True)]
        return tuple(new), (new[0],)

    states, (h,) = scan(step, states, sequences, (cell.units,))
    if masked == "zero" and mask is not None:
        h = ops.where(sequences[1], h, 0)
    return ops.transpose(h, (1, 0, 2)), list(states)


def has_keras_kernel(layer) -> bool:
    """Whether Keras's own loop of `layer` would run on cuDNN here and ours would not: a GPU, not under PyTorch."""
    if keras.backend.backend() == "torch" or isinstance(layer, keras.layers.SimpleRNN) or layer.use_cudnn is False:
        return False
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "gpu"
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))
