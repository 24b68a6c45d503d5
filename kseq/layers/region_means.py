"""Means of a given number of regions."""

import keras
import numpy as np
from keras import ops

from kseq.errors import InputError


@keras.saving.register_keras_serializable(package="kseq")
class RegionMeans(keras.layers.Layer):
    """The means of s × … × s regions of a map, which cover it and overlap where s does not divide it.

    Along an axis of n places, region i holds those from ⌊i n / s⌋ up to, but not with, ⌈(i + 1) n / s⌉, as in
    `torch.nn.AdaptiveAvgPool2d`; a product with a constant matrix for each axis. (Keras's adaptive pooling fails on
    TensorFlow for a single region.)

    Args:
        scale: s, regions along each axis.

    Input shape: `(batch, *space, channels)`, the space known.

    Output shape: `(batch, s, …, s, channels)`.
    """

    def __init__(self, scale: int, **kwargs):
        super().__init__(**kwargs)
        if scale < 1:
            raise InputError(f"scale {scale!r}: give 1 or more regions along each axis")
        self.scale = scale

    def call(self, inputs):
        x = inputs
        for axis in range(1, len(x.shape) - 1):
            before, n, after = x.shape[1:axis], x.shape[axis], x.shape[axis + 1 :]
            rows = ops.reshape(x, (-1, n, int(np.prod(after))))  # (batch · before, n, after · channels)
            rows = ops.matmul(ops.convert_to_tensor(self.matrix(n), x.dtype), rows)
            x = ops.reshape(rows, (-1, *before, self.scale, *after))
        return x

    def matrix(self, n: int) -> np.ndarray:
        """What makes the means of n places, `(s, n)`."""
        region, place = np.arange(self.scale)[:, None], np.arange(n)
        inside = (place >= region * n // self.scale) & (place < -(-(region + 1) * n // self.scale))
        return (inside / inside.sum(axis=1, keepdims=True)).astype("float32")

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *(self.scale,) * (len(input_shape) - 2), input_shape[-1])

    def get_config(self):
        return super().get_config() | {"scale": self.scale}
