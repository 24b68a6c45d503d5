"""Convolutions whose filters have mean 0 and variance 1."""

import keras
from keras import ops

from kseq.backend.convolution import convolution
from kseq.layers.convolution import Convolution, per_axis


@keras.saving.register_keras_serializable(package="kseq")
class StandardizedConvolution(Convolution):
    """The convolution with (w − μ) / √(σ² + ε) in place of w, with mean μ and variance σ² of each filter.

    A filter is all weights that lead to one channel of the output; σ² is the mean of the squares, not the unbiased
    estimate. It makes group normalisation as good as that of the batch (Kolesnikov et al. 2020, "Big transfer").

    Source: Qiao et al. 2019, "Weight standardization" (arXiv 1903.10520), equation 5.

    Args:
        filters: channels of the output.
        kernel_size: places of w along each axis, or one number for all.
        epsilon: ε.
        **kwargs: as of `kseq.layers.Convolution`.

    Input shape: `(batch, *space, channels)` with one to three axes of space.

    Output shape: `(batch, *places, filters)`.

    Raises:
        InputError: as `kseq.layers.Convolution`.
    """

    autocast_kernel = False  # the statistics are those of the kernel before it is rounded to half precision

    def __init__(self, filters: int, kernel_size, *, epsilon: float = 1e-5, **kwargs):
        super().__init__(filters, kernel_size, **kwargs)
        self.epsilon = epsilon

    def call(self, inputs):
        w = ops.cast(self.kernel, keras.backend.result_type(self.compute_dtype, "float32"))
        axes = tuple(range(len(w.shape) - 1))
        centred = w - ops.mean(w, axis=axes, keepdims=True)
        w = centred * ops.rsqrt(ops.mean(centred * centred, axis=axes, keepdims=True) + self.epsilon)
        strides, padding = per_axis("strides", self.strides, inputs.shape), self._padding(inputs.shape)
        return convolution(inputs, ops.cast(w, self.compute_dtype), self.bias, strides=strides, padding=padding)

    def get_config(self):
        return super().get_config() | {"epsilon": self.epsilon}
