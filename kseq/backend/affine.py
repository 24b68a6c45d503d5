"""The affine map of rows."""

import keras
from keras import ops


def affine(rows, kernel, bias):
    """The rows times W, plus b unless it is `None`.

    On PyTorch one operation where Keras has two: 5 % of a training step of a small transformer.

    Args:
        rows: `(rows, features)`.
        kernel: W, `(features, units)`.
        bias: b, `(units,)`.
    """
    if bias is not None and keras.backend.backend() == "torch":
        import torch

        # As tensors: a variable is one of another precision until it is read under autocast.
        return torch.addmm(*map(ops.convert_to_tensor, (bias, rows, kernel)))
    return portable_affine(rows, kernel, bias)


def portable_affine(rows, kernel, bias):
    """`affine` by the operations of Keras."""
    product = ops.matmul(rows, kernel)
    return product if bias is None else ops.add(product, bias)
