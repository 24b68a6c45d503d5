"""Maps of another size, by linear interpolation along each axis."""

from collections.abc import Sequence

import keras

from kseq.backend.resizing import linear_resizing
from kseq.errors import InputError


@keras.saving.register_keras_serializable(package="kseq")
class LinearResizing(keras.layers.Layer):
    """Linear, bilinear or trilinear interpolation to another size: y = (A_1 ⊗ … ⊗ A_r) x for each channel.

    Along an axis of n places that becomes one of m, row i of the constant matrix A `(m, n)` weighs the two places
    beside s_i by their nearness:

        s_i = max((i + ½) n / m − ½, 0),  with `align_corners`  s_i = i (n − 1) / (m − 1)

    where places behind the end are the last one. It is `torch.nn.functional.interpolate` in its modes "linear",
    "bilinear" and "trilinear", and without `align_corners` what `keras.ops.image.resize` computes for images; nothing
    is smoothed when a map becomes smaller.

    Args:
        size: the size of each axis of the output, or one number for all.
        scale: in place of `size`, how many times the size of the input, along each axis or one number for all.
        align_corners: whether the centres of the corner places stay where they are, rather than the outer edges.

    Input shape: `(batch, *space, channels)` with one to three axes of space, of known sizes.

    Output shape: `(batch, *size, channels)`.

    Raises:
        InputError: if not exactly one of `size` and `scale` is given, one is out of range or does not fit the rank of
            the input, or an axis would get no whole size.
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale: float | Sequence[float] | None = None,
        *,
        align_corners: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if (size is None) == (scale is None):
            raise InputError(f"size {size!r} and scale {scale!r}: give one of the two")
        self.size = tuple(size) if isinstance(size, Sequence) else size
        self.scale = tuple(scale) if isinstance(scale, Sequence) else scale
        self.align_corners = align_corners
        argument, values = ("size", self.size) if scale is None else ("scale", self.scale)
        least = 1 if scale is None else 1e-6
        if any(value < least for value in (values if isinstance(values, tuple) else (values,))):
            raise InputError(f"{argument} {values!r}: give positive numbers")

    def call(self, inputs):
        return linear_resizing(inputs, size=self._size(inputs.shape), align_corners=self.align_corners)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self._size(input_shape), input_shape[-1])

    def _size(self, input_shape) -> tuple[int, ...]:
        space = tuple(input_shape[1:-1])
        argument, values = ("size", self.size) if self.scale is None else ("scale", self.scale)
        each = values if isinstance(values, tuple) else (values,) * len(space)
        if not 1 <= len(space) <= 3 or len(each) != len(space):
            raise InputError(
                f"{argument} {values!r}: does not fit an input of shape {tuple(input_shape)}; give one number an axis "
                "of (batch, *space, channels), with one to three axes of space"
            )
        if None in input_shape[1:]:
            raise InputError(f"input of shape {tuple(input_shape)}: give a known size to every axis but the batch")
        if argument == "size":
            return each
        wanted = [old * factor for old, factor in zip(space, each, strict=True)]
        if any(size < 1 or abs(size - round(size)) > 1e-6 for size in wanted):
            raise InputError(
                f"scale {values!r}: would make an input of {space} one of {tuple(wanted)}; give a scale that leads to "
                "whole sizes, or size"
            )
        return tuple(round(size) for size in wanted)

    def get_config(self):
        return super().get_config() | {"size": self.size, "scale": self.scale, "align_corners": self.align_corners}
