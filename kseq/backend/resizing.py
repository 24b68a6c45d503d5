"""Linear interpolation of maps in the form that each backend computes fastest, and the portable form."""

import keras
import numpy as np
from keras import ops


def linear_resizing(x, *, size: tuple[int, ...], align_corners: bool = False):
    """A map of another size, interpolated along each axis.

    PyTorch has a kernel for one to three axes, TensorFlow for two: with the gradient 2 to 12 times faster than products
    with matrices. Under XLA TensorFlow's takes 2 to 20 times as long as those; Keras does not use XLA on a CPU unless
    it is told to. On JAX products are as fast as anything else.

    Args:
        x: `(batch, *space, channels)`, of known sizes but for the batch.
        size: of each axis of the result.
        align_corners: whether the centres of the corner places stay where they are, rather than the outer edges.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        mode = ("linear", "bilinear", "trilinear")[len(size) - 1]
        first = torch.movedim(x, -1, 1)  # (batch, channels, *space)
        first = torch.nn.functional.interpolate(first, size=size, mode=mode, align_corners=align_corners)
        return torch.movedim(first, 1, -1)
    if backend == "tensorflow" and len(size) == 2:
        import tensorflow as tf

        images = tf.cast(x, tf.float32)  # as which the kernel returns all others but float64
        outputs = tf.raw_ops.ResizeBilinear(
            images=images, size=size, align_corners=align_corners, half_pixel_centers=not align_corners
        )
        return tf.cast(outputs, x.dtype)
    return portable_linear_resizing(x, size=size, align_corners=align_corners)


def portable_linear_resizing(x, *, size: tuple[int, ...], align_corners: bool = False):
    """`linear_resizing` as a product with a constant matrix along each axis."""
    for axis in range(len(size), 0, -1):  # the last axis first: its products are the small ones
        old, new = x.shape[axis], size[axis - 1]
        if old == new:
            continue
        before, after = x.shape[1:axis], x.shape[axis + 1 :]
        matrix = ops.convert_to_tensor(interpolation(old, new, align_corners), x.dtype)
        rows = ops.reshape(x, (-1, old, int(np.prod(after))))  # (batch · before, old, after · channels)
        x = ops.reshape(ops.matmul(matrix, rows), (-1, *before, new, *after))
    return x


def interpolation(old: int, new: int, align_corners: bool) -> np.ndarray:
    """The matrix `(new, old)` that interpolates `new` places from `old`."""
    corners = np.arange(new) * (old - 1) / max(new - 1, 1)
    places = corners if align_corners else np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0)
    left = np.minimum(np.floor(places).astype(int), old - 1)
    share = places - left
    matrix = np.zeros((new, old), "float32")
    np.add.at(matrix, (np.arange(new), left), 1 - share)
    np.add.at(matrix, (np.arange(new), np.minimum(left + 1, old - 1)), share)
    return matrix
