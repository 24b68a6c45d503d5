"""Pooling of sequences, images and volumes."""

from collections.abc import Sequence
from typing import Literal

import keras

from kseq.backend.pooling import max_pooling
from kseq.errors import InputError
from kseq.layers.convolution import checked_sizes, per_axis


@keras.saving.register_keras_serializable(package="kseq")
class MaxPooling(keras.layers.Layer):
    """The maximum of each window, in one to three dimensions, channels last whatever Keras's image format.

    Args:
        size: places of a window along each axis, or one number for all.
        strides: places from one window to the next; `None` is `size`.
        padding: "valid": windows that do not fit are left out; "same": they are filled up.

    Input shape: `(batch, *space, channels)` with one to three axes of space.

    Output shape: `(batch, *places, channels)`.

    Raises:
        InputError: if an argument is out of range or has not one number an axis, or a window is larger than the input.
    """

    def __init__(
        self,
        size: int | Sequence[int] = 2,
        *,
        strides: int | Sequence[int] | None = None,
        padding: Literal["valid", "same"] = "valid",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if padding not in ("valid", "same"):
            raise InputError(f"padding {padding!r}: choose 'valid' or 'same'")
        self.size, self.padding = checked_sizes("size", size), padding
        self.strides = None if strides is None else checked_sizes("strides", strides)

    def call(self, inputs):
        size, strides = self._windows(inputs.shape)
        return max_pooling(inputs, size=size, strides=strides, padding=self.padding)

    def _windows(self, input_shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
        size = per_axis("size", self.size, input_shape)
        return size, size if self.strides is None else per_axis("strides", self.strides, input_shape)

    def compute_output_shape(self, input_shape):
        size, strides = self._windows(input_shape)
        space = tuple(input_shape[1:-1])
        if self.padding == "same":
            places = [None if n is None else -(-n // s) for n, s in zip(space, strides, strict=True)]
            return (input_shape[0], *places, input_shape[-1])
        if any(n is not None and n < k for n, k in zip(space, size, strict=True)):
            raise InputError(f"size {size}: larger than the input of {space}; give a smaller one, or padding 'same'")
        places = [None if n is None else (n - k) // s + 1 for n, k, s in zip(space, size, strides, strict=True)]
        return (input_shape[0], *places, input_shape[-1])

    def get_config(self):
        return super().get_config() | {"size": self.size, "strides": self.strides, "padding": self.padding}
