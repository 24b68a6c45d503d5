"""The largest of several affine maps."""

import keras
from keras import ops

from kseq.errors import InputError
from kseq.layers.dense import Dense


@keras.saving.register_keras_serializable(package="kseq")
class Maxout(keras.layers.Layer):
    """y_i = max_k (x W + b)_{i,k}, for each unit i the largest of `pieces` affine maps of the last axis.

    Source: Goodfellow et al. 2013 (arXiv 1302.4389); with 2 pieces the output layer of Bahdanau et al. 2015 (arXiv
    1409.0473), appendix A.2.2.

    Args:
        units: size of the last axis of the output.
        pieces: affine maps for each of them; they stand side by side in the kernel.

    Input shape: `(batch, …, features)`.

    Output shape: `(batch, …, units)`.

    Raises:
        InputError: for fewer than 1 unit or 2 pieces.
    """

    def __init__(self, units: int, pieces: int = 2, **kwargs):
        super().__init__(**kwargs)
        for argument, value, least in (("units", units, 1), ("pieces", pieces, 2)):
            if value < least:
                raise InputError(f"{argument} {value!r}: give {least} or more")
        self.units, self.pieces = units, pieces

    def build(self, input_shape):
        self.dense = Dense(self.units * self.pieces, dtype=self.dtype_policy, name="dense")
        self.dense.build(input_shape)
        self.built = True

    def call(self, inputs):
        x = self.dense(inputs)
        x = ops.reshape(x, (-1, *ops.shape(inputs)[1:-1], self.units, self.pieces))  # (batch, …, units, pieces)
        return ops.max(x, axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return super().get_config() | {"units": self.units, "pieces": self.pieces}
