"""Zeros at masked steps."""

import keras
from keras import layers, ops

from kseq.errors import InputError


@keras.saving.register_keras_serializable(package="kseq")
class MaskSteps(layers.Layer):
    """x_t at valid steps, 0 at masked ones, NaN included.

    `keras.layers.Masking` takes steps of a certain value for masked, and a black frame may be part of a video. This
    layer is told.

    Call arguments:
        inputs: x `(batch, time, …)` with a mask of its own, or `[x, mask]` with the mask `(batch, time)`.

    Output shape: that of x.

    Masking: the output has the mask.

    Raises:
        InputError: if the mask has another shape than x has in front.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        x, mask = inputs if isinstance(inputs, (list, tuple)) else (inputs, mask)
        if mask is None:
            return x
        mask, steps = ops.cast(mask, "bool"), tuple(x.shape[:2])
        if len(mask.shape) != 2 or any(a != b for a, b in zip(mask.shape, steps, strict=True) if None not in (a, b)):
            raise InputError(f"mask of shape {tuple(mask.shape)}: give (batch, time), here {steps}")
        valid = ops.reshape(mask, (*ops.shape(mask), *(1,) * (len(x.shape) - 2)))  # (batch, time, 1, …)
        return ops.where(valid, x, 0)

    def compute_mask(self, inputs, mask=None):
        return ops.cast(inputs[1], "bool") if isinstance(inputs, (list, tuple)) else mask

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0]) if isinstance(input_shape[0], (tuple, list)) else input_shape
