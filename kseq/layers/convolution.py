"""Convolutions of sequences, images and volumes, and their transposes."""

from collections.abc import Sequence
from math import prod

import keras
from keras import ops

from kseq.backend.convolution import convolution, padding_of, transposed_convolution
from kseq.errors import InputError


@keras.saving.register_keras_serializable(package="kseq")
class Convolution(keras.layers.Layer):
    """y_o = Σ_k x_(s o + k − p) w_k + b, in one to three dimensions.

    With s the strides and p the zeros put in front of an axis. It computes what `Conv1D`, `Conv2D` and `Conv3D` of
    Keras do, channels last whatever Keras's image format, each backend in its fastest form: 3-D convolutions take JAX
    on CPU 0.03 to 0.5 of the time that Keras's do.

    Args:
        filters: channels of the output.
        kernel_size: places of w along each axis, or one number for all.
        strides: s, along each axis or one number for all.
        padding: "same": zeros on both sides so that the output has ⌈size / s⌉ places, of an odd number one more
            behind, as in Keras; "valid": none; or how many on each side of each axis, or one number for all, as in
            PyTorch.
        use_bias: whether there is a b.
        kernel_initializer: of w `(*kernel_size, channels, filters)`.
        bias_initializer: of b.

    Input shape: `(batch, *space, channels)` with one to three axes of space.

    Output shape: `(batch, *places, filters)`.

    Raises:
        InputError: if an argument is out of range, has not one number an axis, or a window is larger than the input.
    """

    autocast_kernel = True  # whether w is read in the precision of the computation

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        *,
        strides: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = "same",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if filters < 1:
            raise InputError(f"filters {filters!r}: give 1 or more")
        self.filters, self.use_bias = filters, use_bias
        self.kernel_size = checked_sizes("kernel_size", kernel_size)
        self.strides = checked_sizes("strides", strides)
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise InputError(f"padding {padding!r}: choose 'same', 'valid' or the number of zeros on each side")
        self.padding = padding if isinstance(padding, str) else checked_sizes("padding", padding, 0)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape):
        self._output_space(input_shape)  # or an error
        size = per_axis("kernel_size", self.kernel_size, input_shape)
        shape = (*size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(
            shape=shape, initializer=self.kernel_initializer, autocast=self.autocast_kernel, name="kernel"
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.filters,), initializer=self.bias_initializer, name="bias")
        self.built = True

    def call(self, inputs):
        strides, padding = per_axis("strides", self.strides, inputs.shape), self._padding(inputs.shape)
        return convolution(inputs, self.kernel, self.bias, strides=strides, padding=padding)

    def _padding(self, input_shape):
        if isinstance(self.padding, str):
            return self.padding
        return tuple((zeros, zeros) for zeros in per_axis("padding", self.padding, input_shape))

    def _output_space(self, input_shape) -> tuple[int | None, ...]:
        size = per_axis("kernel_size", self.kernel_size, input_shape)
        strides = per_axis("strides", self.strides, input_shape)
        space = [n or 1 for n in input_shape[1:-1]]
        pads = padding_of(self._padding(input_shape), size, strides, space)
        places = [(n + sum(p) - k) // s + 1 for n, p, k, s in zip(space, pads, size, strides, strict=True)]
        known = [None if n is None else m for n, m in zip(input_shape[1:-1], places, strict=True)]
        if any(m is not None and m < 1 for m in known):
            raise InputError(
                f"kernel_size {size}: larger than the input of {tuple(input_shape[1:-1])}; give a smaller one, or "
                "padding 'same'"
            )
        return tuple(known)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self._output_space(input_shape), self.filters)

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


@keras.saving.register_keras_serializable(package="kseq")
class TransposedConvolution(keras.layers.Layer):
    """y_o = Σ_i x_i w_(o + p − s i) + b: each place of the input adds its window w to a map s times as large.

    For a kernel as large as the scale s the windows lie side by side: the "up-convolution" of Ronneberger et al. 2015
    (arXiv 1505.04597). Of a larger one with K places, K − s of the whole are cut off, p = ⌊(K − s + 1) / 2⌋ of them in
    front, as `torch.nn.ConvTranspose2d(…, K, s, padding=p, output_padding=…)` does to get the same size.

    Args:
        filters: channels of the output.
        scale: s, along each axis or one number for all.
        kernel_size: K, along each axis or one number for all, at least s; `None` is s.
        use_bias: whether there is a b.
        kernel_initializer: of w `(*kernel_size, channels, filters)`, drawn for what one place of the output adds up:
            ⌈K / s⌉ places of the input along each axis.
        bias_initializer: of b.

    Input shape: `(batch, *space, channels)` with one to three axes of space, of known sizes.

    Output shape: `(batch, *(s · space), filters)`.

    Raises:
        InputError: if an argument is out of range or has not one number an axis, or the kernel is smaller than the
            scale.
    """

    def __init__(
        self,
        filters: int,
        scale: int | Sequence[int] = 2,
        *,
        kernel_size: int | Sequence[int] | None = None,
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if filters < 1:
            raise InputError(f"filters {filters!r}: give 1 or more")
        self.filters, self.use_bias = filters, use_bias
        self.scale = checked_sizes("scale", scale)
        self.kernel_size = None if kernel_size is None else checked_sizes("kernel_size", kernel_size)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape):
        if None in input_shape[1:]:
            raise InputError(f"input of shape {tuple(input_shape)}: give a known size to every axis but the batch")
        scale = per_axis("scale", self.scale, input_shape)
        size = scale if self.kernel_size is None else per_axis("kernel_size", self.kernel_size, input_shape)
        if any(k < s for k, s in zip(size, scale, strict=True)):
            raise InputError(f"kernel_size {size}: smaller than the scale {scale}; give that or more")
        self.kernel = self.add_weight(
            shape=(*size, input_shape[-1], self.filters), initializer=self._initial, name="kernel"
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.filters,), initializer=self.bias_initializer, name="bias")
        self.built = True

    def _initial(self, shape, dtype=None):
        """W as that of the convolution whose filters are all places of a block of the output."""
        *size, channels, filters = shape
        rank, scale = len(size), per_axis("scale", self.scale, (None, *size, channels))
        taps = [-(-k // s) for k, s in zip(size, scale, strict=True)]
        w = self.kernel_initializer((*taps, channels, prod(scale) * filters), dtype=dtype)
        w = ops.reshape(w, (*taps, channels, *scale, filters))
        order = [axis for pair in zip(range(rank), range(rank + 1, 2 * rank + 1), strict=True) for axis in pair]
        w = ops.transpose(w, (*order, rank, 2 * rank + 1))  # (taps_1, s_1, taps_2, s_2, …, channels, filters)
        w = ops.reshape(w, (*(t * s for t, s in zip(taps, scale, strict=True)), channels, filters))
        return w[tuple(slice(k) for k in size)]

    def call(self, inputs):
        return transposed_convolution(inputs, self.kernel, self.bias, scale=per_axis("scale", self.scale, inputs.shape))

    def compute_output_shape(self, input_shape):
        scale = per_axis("scale", self.scale, input_shape)
        space = (None if n is None else n * s for n, s in zip(input_shape[1:-1], scale, strict=True))
        return (input_shape[0], *space, self.filters)

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "scale": self.scale,
            "kernel_size": self.kernel_size,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


def checked_sizes(argument: str, value: int | Sequence[int], least: int = 1) -> int | tuple[int, ...]:
    """`value` as an integer or a tuple, or an error if a number is below `least`."""
    sizes = (value,) if isinstance(value, int) else tuple(value)
    if not 1 <= len(sizes) <= 3 or any(not isinstance(size, int) or size < least for size in sizes):
        raise InputError(f"{argument} {value!r}: give {least} or more, one number or one for each of up to three axes")
    return value if isinstance(value, int) else sizes


def per_axis(argument: str, value: int | tuple[int, ...], input_shape) -> tuple[int, ...]:
    """One number an axis of space, or an error if the input has another rank."""
    rank = len(input_shape) - 2
    sizes = (value,) * rank if isinstance(value, int) else tuple(value)
    if not 1 <= rank <= 3 or len(sizes) != rank:
        raise InputError(
            f"{argument} {value!r}: does not fit an input of shape {tuple(input_shape)}; give one number an axis of "
            "(batch, *space, channels), with one to three axes of space"
        )
    return sizes
